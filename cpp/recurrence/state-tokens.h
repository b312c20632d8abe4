// Which tokens of a pass make states, as prompts do, and the pass without them.
#pragma once

#include <vector>

#include "kernel/recurrence.h"

namespace hw {

// Of a view, side by side.
struct StateTokens {
    int32_t first_token;
    std::vector<int32_t> n_tokens;  // of each of its works

    int32_t end() const;
    bool operator==(const StateTokens& other) const {
        return first_token == other.first_token && n_tokens == other.n_tokens;
    }
};

// In the order of the views.
std::vector<StateTokens> state_tokens(const RecurrentPlan& plan);
// Views that make states, in the same order.
std::vector<RecurrentView> state_views(const RecurrentPlan& plan);
// The other views, whose tokens are numbered anew, in their order.
RecurrentPlan without_states(const RecurrentPlan& plan);

}  // namespace hw
