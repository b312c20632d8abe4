// Several tokens of a delta net whose states decay as a whole.
//
// With c_i = g_1 .. g_i, what tokens 1 .. n do to a state M, for values V (0 for A):
//
//   u_i = beta_i (v_i - c_i k_i M - sum over j < i of (c_i / c_j) (k_i k_j) u_j)
//   q_i reads c_i q_i M + sum over j <= i of (c_i / c_j) (q_i k_j) u_j
//   M <- c_n M + sum over j of (c_n / c_j) k_j u_j
#pragma once

#include <cstdint>

#include "kernel/matrix-chunk.h"

namespace hw {

class DeltaChunk final : public MatrixChunk {
  public:
    // scratch: n_floats(shape) numbers.
    DeltaChunk(const RecurrenceShape& shape, float* scratch);
    static size_t n_floats(const RecurrenceShape& shape);

    int64_t take(const TokenRows& tokens, const float* q, int64_t q_row) override;
    void apply(float* matrix, int64_t n, bool has_values, float* reads, int64_t reads_row) override;

  private:
    void weigh(const float* q, int64_t q_row);

    float* keys_;        // [tokens, d_k]: k_i, times what it has decayed
    float* keys_after_;  // [d_k, tokens]: k_i, times what is left of it in the end
    float* among_keys_;  // [tokens, tokens]: of each token, what those before it do to its u
    float* ratios_;      // [tokens, tokens]: c_i / c_j
    float* betas_;       // [tokens]
};

}  // namespace hw
