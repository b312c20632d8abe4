// How large the graph of a pass is: at least as large as the pass. What is too much goes to scratch cells
// (cache/cell-moves.h), and nobody reads it.
#pragma once

#include <cstdint>

namespace hw {

struct PassSize {
    int32_t n_tokens;
    int32_t n_outputs;  // rows of logits, 1 to n_tokens

    bool operator==(const PassSize& other) const { return n_tokens == other.n_tokens && n_outputs == other.n_outputs; }
};

// The rows that n tokens are given: as many as they are where they are few, and few sizes beyond, so that graphs serve
// again. Kernels take four rows or eight at once (ggml's, and kernel/product.h).
int32_t rows_for(int32_t n);
// n_tokens is at most n_batch, and n_outputs at most n_tokens.
PassSize size_of_pass(int32_t n_tokens, int32_t n_outputs, int32_t n_batch);

}  // namespace hw
