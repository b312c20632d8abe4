// Several tokens of a delta net at once: products of matrices, in the place of one vector after the other.
//
// With c_i = g_1 .. g_i, what tokens 1 .. n do to a state M, for values V (0 for A):
//
//   u_i = beta_i (v_i - c_i k_i M - sum over j < i of (c_i / c_j) (k_i k_j) u_j)
//   q_i reads c_i q_i M + sum over j <= i of (c_i / c_j) (q_i k_j) u_j
//   M <- c_n M + sum over j of (c_n / c_j) k_j u_j
//
// Where each row of a state decays by itself (Kimi), a chunk is one token.
#pragma once

#include <cstdint>

#include "kernel/recurrence.h"
#include "kernel/state-loops.h"

namespace hw {

class DeltaChunk {
  public:
    static constexpr int64_t most_tokens = 32;

    // scratch: n_floats(shape) numbers.
    DeltaChunk(const RecurrenceShape& shape, float* scratch);
    static size_t n_floats(const RecurrenceShape& shape);
    int64_t n_most() const { return shape_.n_decay == 1 ? most_tokens : 1; }

    // The tokens that apply() applies; q: a row each, NULL: nothing is read.
    void take(const TokenRows& tokens, const float* q, int64_t q_row);
    // matrix [d_k, n], behind the tokens. values: a row a token, NULL: 0. reads: likewise, written; NULL: none are.
    void apply(float* matrix, int64_t n, const float* values, int64_t values_row, float* reads, int64_t reads_row);

  private:
    void weigh(const TokenRows& tokens, const float* q, int64_t q_row);

    const RecurrenceShape& shape_;
    int64_t n_ = 0;
    const float* decays_ = nullptr;  // of a chunk of one token
    float* keys_;                    // [tokens, d_k]: k_i, times what it has decayed
    float* keys_after_;              // [d_k, tokens]: k_i, times what is left of it in the end
    float* queries_;                 // [tokens, d_k]
    float* among_keys_;              // [tokens, tokens]: of each token, what those before it do to its u
    float* among_queries_;           // likewise, to what it reads
    float* ratios_;                  // [tokens, tokens]: c_i / c_j
    float* betas_;                   // [tokens]
    float* changes_;                 // [tokens, d_v or d_k]: u_i
    const StateLoops& loops_ = state_loops();
};

}  // namespace hw
