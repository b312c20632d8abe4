// Several tokens of a recurrence that multiplies states by matrices, where each row of a state decays by itself:
// RWKV-7, and Kimi's delta net.
//
//   M <- diag(w) M + b (a M) + k v^T      Kimi: a = - beta w k, b = k, and beta v in the place of v
//
// With C_i = w_1 .. w_i, row by row, what tokens 1 .. n do to a state M, for values V (0 for A):
//
//   u_i = (C_i-1 a_i) M + sum over j < i of (C_i-1 a_i) ((b_j / C_j) u_j + (k_j / C_j) v_j)
//   q_i reads (C_i q_i) M + sum over j <= i of (C_i q_i) ((b_j / C_j) u_j + (k_j / C_j) v_j)
//   M <- diag(C_n) M + sum over j of (C_n b_j / C_j) u_j + (C_n k_j / C_j) v_j
//
// The sources of changes are, of each token, what it puts back (u), then its key (v); of Kimi's they are the same.
//
// A chunk ends where a row has decayed so far that these quotients would be out of range.
#pragma once

#include <cstdint>

#include "kernel/matrix-chunk.h"

namespace hw {

class VectorChunk final : public MatrixChunk {
  public:
    // scratch: n_floats(shape) numbers.
    VectorChunk(const RecurrenceShape& shape, float* scratch);
    static size_t n_floats(const RecurrenceShape& shape);

    int64_t take(const TokenRows& tokens, const float* q, int64_t q_row) override;
    void apply(float* matrix, int64_t n, bool has_values, float* reads, int64_t reads_row) override;

  private:
    int64_t n_in_range() const;
    void put(int64_t i);
    void weigh(const float* from, float* among, int64_t n_own) const;
    const float* row(int64_t i) const { return tokens_.rows + i * tokens_.stride; }
    const float* decayed(int64_t i) const { return decayed_ + i * shape_.d_k; }  // C_i; C_0 is 1

    const bool is_delta_;
    float* decayed_;       // [1 + tokens, d_k]
    float* takers_;        // [tokens, d_k]: C_i-1 a_i
    float* sources_;       // [d_k, sources]: / C_j, then what is left of them in the end
    float* among_takers_;  // [tokens, sources]
};

}  // namespace hw
