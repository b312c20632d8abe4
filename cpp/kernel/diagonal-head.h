// States whose rows decay each by itself: one head, whatever its tokens are.
#pragma once

#include <cstdint>

#include "kernel/recurrence-loops.h"

namespace hw {

// The tokens of a pass, as a head has them.
class DiagonalTokens {
  public:
    virtual ~DiagonalTokens() = default;
    // A row of a run: key [d_k], value [d_v], decays [n_decay].
    virtual void put_row(int64_t token, float* row) const = 0;
    virtual void put_query(int64_t token, float* query) const = 0;
    // [d_k]: a token reads states as they were before it, and of itself as much as this says. NULL: as all else.
    virtual const float* bonus() const { return nullptr; }
    virtual float* out(int64_t token) const = 0;  // [d_v]
};

class DiagonalHead {
  public:
    // scratch: diagonal_scratch() numbers.
    DiagonalHead(const RecurrentPlan& plan, const Recurrence& recurrence, const DiagonalTokens& tokens,
                 const ReadOrder& order, float* scratch, int64_t head);

    void run() const;

  private:
    void update(const RecurrentWork& work, const RecurrentView& view) const;
    void go_on_links(const RecurrentView& view, float* state) const;
    void begin(int64_t token, const float* row) const;
    void step(int64_t token, float* decays, float* state) const;
    void read_run(int64_t token, const RecurrentRun& run) const;
    void read_map(int64_t token, const float* decays, const float* state) const;
    void add_read(int64_t token, const float* state) const;
    void read_composed(const RecurrentView& view) const;
    float* query_of(int64_t token) const { return queries_ + token * shape_.d_k; }

    const RecurrentPlan& plan_;
    Head head_;
    const RecurrenceShape& shape_;
    const DiagonalTokens& tokens_;
    const float* bonus_;
    const ReadOrder& order_;
    float* queries_;  // [tokens, d_k]: for the runs before those that were read
    float* state_;    // [d_v, d_k]
    float* row_;      // of a token
    float* reads_;    // [d_v]
    const StateLoops& loops_ = state_loops();
};

}  // namespace hw
