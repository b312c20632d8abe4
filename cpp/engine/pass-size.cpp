#include "engine/pass-size.h"

#include <algorithm>

namespace hw {

namespace {

// Exact where a token costs a row of the weights' kernels.
int32_t round_up(int32_t n) {
    const int32_t step = n <= 8 ? 1 : n <= 32 ? 4 : n <= 128 ? 32 : 128;
    return (n + step - 1) / step * step;
}

}  // namespace

// A graph without logits would be another one, for the sake of one row: a chunk of a prompt has one that nobody reads.
PassSize size_of_pass(int32_t n_tokens, int32_t n_outputs, int32_t n_batch) {
    const int32_t size = std::min(round_up(n_tokens), n_batch);
    return {size, std::min(round_up(std::max(n_outputs, 1)), size)};
}

}  // namespace hw
