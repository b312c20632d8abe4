#include "engine/pass-size.h"

#include <algorithm>

namespace hw {

int32_t rows_for(int32_t n) {
    constexpr int32_t exact = 8;  // passes up to here are as large as they are
    const int32_t step = n <= exact ? 1 : n <= 32 ? 4 : 32;
    return (n + step - 1) / step * step;
}

// A graph without logits would be another one, for the sake of one row: a chunk of a prompt has one that nobody reads.
PassSize size_of_pass(int32_t n_tokens, int32_t n_outputs, int32_t n_batch) {
    const int32_t size = std::min(rows_for(n_tokens), n_batch);
    return {size, std::min(rows_for(std::max(n_outputs, 1)), size)};
}

}  // namespace hw
