// What few tokens read of the runs that stand before them, from their own runs back. Tokens that come to the same run
// at the same step read it together: it is fetched once for all of them.
#pragma once

#include <cstdint>
#include <vector>

#include "kernel/recurrence.h"

namespace hw {

// Tokens that a view feeds.
inline int64_t n_tokens_of(const RecurrentPlan& plan, const RecurrentView& view) {
    const RecurrentWork& first = plan.works[static_cast<size_t>(view.first_work)];
    const RecurrentWork& last = plan.works[static_cast<size_t>(view.first_work + view.n_works - 1)];
    return last.first_token + last.n_tokens - first.first_token;
}

inline bool makes_states(const RecurrentPlan& plan, const RecurrentView& view) {
    return plan.works[static_cast<size_t>(view.first_work)].before.is_state;
}

class ReadOrder {
  public:
    struct Read {
        int64_t token;
        int64_t step;
        RecurrentRun run;
        bool is_first;  // of the view: nothing stands before it
    };

    // n_itself: 1: a token reads its own run of rows up to itself; 0: to the one before. most: of views with so many
    // tokens. Those that make states read nothing, and runs of maps that tokens go to are read when they change.
    ReadOrder(const RecurrentPlan& plan, int64_t most, int32_t n_itself);

    int32_t n_itself() const { return n_itself_; }
    // Whether a view has more tokens, all of which read.
    bool leaves_out(const RecurrentPlan& plan, const RecurrentView& view) const {
        return !makes_states(plan, view) && n_tokens_of(plan, view) > most_;
    }
    // Calls read(reads, n), in an order that is right for each token, for reads of the same run: n_most or fewer.
    template <class Call>
    void each(int64_t n_most, const Call& call) const {
        for (size_t i = 0; i < reads_.size();) {
            size_t end = i + 1;
            while (end < reads_.size() && static_cast<int64_t>(end - i) < n_most && is_same(reads_[i], reads_[end])) {
                end++;
            }
            call(&reads_[i], static_cast<int64_t>(end - i));
            i = end;
        }
    }

  private:
    static bool is_same(const Read& a, const Read& b);
    void add(const RecurrentPlan& plan, const RecurrentView& view);

    int64_t most_;
    int32_t n_itself_;
    std::vector<Read> reads_;
};

}  // namespace hw
