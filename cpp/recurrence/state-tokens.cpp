#include "recurrence/state-tokens.h"

#include <numeric>

#include "kernel/read-order.h"

namespace hw {

int32_t StateTokens::end() const { return std::accumulate(n_tokens.begin(), n_tokens.end(), first_token); }

std::vector<RecurrentView> state_views(const RecurrentPlan& plan) {
    std::vector<RecurrentView> views;
    for (const RecurrentView& view : plan.views) {
        if (makes_states(plan, view)) {
            views.push_back(view);
        }
    }
    return views;
}

std::vector<StateTokens> state_tokens(const RecurrentPlan& plan) {
    std::vector<StateTokens> result;
    for (const RecurrentView& view : state_views(plan)) {
        const RecurrentWork* works = plan.works.data() + view.first_work;
        StateTokens tokens = {works[0].first_token, {}};
        for (int32_t i = 0; i < view.n_works; i++) {
            tokens.n_tokens.push_back(works[i].n_tokens);
        }
        result.push_back(std::move(tokens));
    }
    return result;
}

RecurrentPlan without_states(const RecurrentPlan& plan) {
    RecurrentPlan rest = plan;
    rest.views.clear();
    for (const RecurrentView& view : plan.views) {
        if (!makes_states(plan, view)) {
            rest.views.push_back(view);
        }
    }
    for (const StateTokens& tokens : state_tokens(plan)) {
        const int32_t n = tokens.end() - tokens.first_token;
        rest.n_tokens -= n;
        for (size_t i = 0; i < plan.works.size(); i++) {
            rest.works[i].first_token -= plan.works[i].first_token >= tokens.end() ? n : 0;
        }
    }
    return rest;
}

}  // namespace hw
