// States that each token multiplies by a matrix: one head, whatever its tokens are.
//
// The matrix A of a map begins as the unit matrix and is changed as S is, with values of 0.
#pragma once

#include <cstdint>

#include "kernel/recurrence-loops.h"

namespace hw {

// How a kind goes through tokens that are rows.
class MatrixRows {
  public:
    virtual ~MatrixRows() = default;
    // What x [d_k] reads of them, see kernel/state-loops.h.
    virtual void read_back(const TokenRows& tokens, float* x, float* y) const = 0;
    // state [d_k, d_v], and matrix [d_k, d_k] unless NULL, behind them.
    virtual void pass_on(const TokenRows& tokens, float* state, float* matrix) = 0;
};

class MatrixHead {
  public:
    // scratch: n_floats() numbers. out: of all heads.
    MatrixHead(const RecurrentPlan& plan, const Recurrence& recurrence, MatrixRows* rows, float* scratch, int64_t head,
               float* out);
    virtual ~MatrixHead() = default;
    static size_t n_floats(const RecurrenceShape& shape, int32_t n_tokens);

    void run();

  protected:
    // The tokens of the pass, as the head has them: a row of a run, and a query [d_k].
    virtual void put_row(int64_t token, float* row) const = 0;
    virtual const float* query(int64_t token) const = 0;
    // Tokens that go to the end of a map: also what each of them reads of it, and its query for what stands before;
    // nothing does: is_first.
    virtual void update_map(int64_t first_token, int64_t n, float* map, bool is_first) = 0;

    void begin(int64_t token) const;
    void read_map(int64_t token, const float* map, bool is_first);
    float* query_of(int64_t token) const { return queries_ + token * d_k_; }
    float* out_of(int64_t token) const { return out_ + (token * head_.shape().n_head + number_) * d_v_; }

    const Head head_;
    const int64_t number_, d_k_, d_v_;
    const StateLoops& loops_ = state_loops();

  private:
    void update(const RecurrentWork& work, bool is_first);
    void read(const RecurrentView& view);
    void read_run(int64_t token, const RecurrentRun& run, bool is_first);
    void read_composed(const RecurrentView& view);
    void go_on(const RecurrentRun& run, bool is_first);

    const RecurrentPlan& plan_;
    MatrixRows& rows_;
    float* out_;
    float* queries_;  // [tokens, d_k]: for the runs before those that were read
    float* state_;    // [d_k, d_v]
    float* next_;     // likewise, or [d_k]
};

// As join_runs().
void join_matrices(const Recurrence& recurrence, const RecurrentRun& first, const RecurrentRun& second,
                   MatrixRows* rows, float* out);

}  // namespace hw
