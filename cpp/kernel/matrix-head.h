// States that each token multiplies by a matrix: one head, whatever its tokens are.
//
// The matrix A of a map begins as the unit matrix and is changed as S is, with values of 0.
#pragma once

#include <cstdint>
#include <memory>

#include "kernel/matrix-chunk.h"
#include "kernel/recurrence-loops.h"

namespace hw {

// The tokens of a pass, as a head has them.
class MatrixTokens {
  public:
    MatrixTokens(const HeadRows& q, float* y, float factor) : queries(q), out(y), scale(factor) {}
    virtual ~MatrixTokens() = default;
    // A row of a run.
    virtual void put_row(int64_t token, float* row) const = 0;

    const HeadRows& queries;  // [d_k]
    float* const out;         // [tokens, heads, d_v]
    const float scale;        // of what is read
};

class MatrixHead {
  public:
    // scratch: matrix_scratch() numbers.
    MatrixHead(const RecurrentPlan& plan, const Recurrence& recurrence, const MatrixTokens& tokens,
               const ReadOrder& order, float* scratch, int64_t head);

    void run() const;

    static constexpr int64_t most_together = 8;  // tokens that read a run at once

  private:
    void update(const RecurrentWork& work, const RecurrentView& view, bool is_first) const;
    void update_map(const RecurrentWork& work, float* state, float* matrix, bool is_first) const;
    void begin(int64_t token) const;
    void read(const ReadOrder::Read* reads, int64_t n) const;
    void read_rows(int64_t token, const RecurrentRun& run) const;
    void compose(const RecurrentView& view) const;
    void read_composed(const RecurrentView& view) const;
    void go_on(const RecurrentRun& run, bool is_first) const;
    float* query_of(int64_t token) const { return queries_ + token * d_k_; }
    float* out_of(int64_t token) const { return tokens_.out + (token * head_.shape().n_head + number_) * d_v_; }

    const RecurrentPlan& plan_;
    const Head head_;
    const int64_t number_, d_k_, d_v_;
    const MatrixTokens& tokens_;
    const ReadOrder& order_;
    float* queries_;   // [tokens, d_k]: for the runs before those that were read
    float* state_;     // [d_k, d_v]
    float* next_;      // likewise
    float* together_;  // [most_together, d_k]: queries that read at once; then [.., d_v or d_k]: what they read
    float* rows_;      // of a chunk
    const std::unique_ptr<MatrixChunk> chunk_;
    const StateLoops& loops_ = state_loops();
};

}  // namespace hw
