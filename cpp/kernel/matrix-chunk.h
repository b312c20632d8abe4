// Several tokens at once of a recurrence that multiplies states by matrices: products of matrices, in the place of one
// vector after the other.
#pragma once

#include <cstdint>
#include <memory>

#include "kernel/recurrence.h"
#include "kernel/state-loops.h"

namespace hw {

class MatrixChunk {
  public:
    static constexpr int64_t most_tokens = 32;

    virtual ~MatrixChunk() = default;
    // The tokens that apply() applies: how many of these, from the first on. q: a row each, NULL: nothing is read.
    virtual int64_t take(const TokenRows& tokens, const float* q, int64_t q_row) = 0;
    // matrix [d_k, n], behind the tokens, with their values (n is d_v), or with values of 0. reads: a row a token,
    // written; NULL: none are.
    virtual void apply(float* matrix, int64_t n, bool has_values, float* reads, int64_t reads_row) = 0;

  protected:
    // scratch: chunk_floats(shape) numbers.
    MatrixChunk(const RecurrenceShape& shape, float* scratch) : shape_(shape), scratch_(scratch) {}

    // Some of the scratch.
    float* floats(int64_t n) {
        scratch_ += n;
        return scratch_ - n;
    }
    // What the tokens read of a matrix before it is changed, and of the first n_used changes.
    void read(const float* matrix, int64_t n, int64_t n_used, float* reads, int64_t reads_row) const;

    const RecurrenceShape& shape_;
    TokenRows tokens_ = {};
    int64_t n_ = 0;          // tokens
    int64_t n_sources_ = 0;  // of changes: one a token, or two
    float* queries_;         // [tokens, d_k]: times what states have decayed
    float* among_queries_;   // [tokens, sources]: of each token, what changes do to what it reads
    float* changes_;         // [sources, d_v or d_k]
    const StateLoops& loops_ = state_loops();

  private:
    float* scratch_;
};

// That of a recurrence. scratch: chunk_floats(shape) numbers.
std::unique_ptr<MatrixChunk> make_chunk(const RecurrenceShape& shape, float* scratch);
size_t chunk_floats(const RecurrenceShape& shape);

}  // namespace hw
