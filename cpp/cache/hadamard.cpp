#include "cache/hadamard.h"

#include <cmath>

namespace hw {

namespace {

constexpr int64_t smallest = 64;  // llama.cpp's: a smaller one spreads too little

}  // namespace

int64_t hadamard_size(ggml_type type, int64_t d, int64_t most) {
    if (!ggml_is_quantized(type) || d % smallest != 0) {
        return 0;
    }
    int64_t n = smallest;
    while (2 * n <= most && d % (2 * n) == 0) {
        n *= 2;
    }
    return n;
}

std::vector<float> hadamard_values(int64_t n) {
    const size_t size = static_cast<size_t>(n);
    std::vector<float> values(size * size, 1.0f / std::sqrt(static_cast<float>(n)));
    for (size_t row = 0; row < size; row++) {
        for (size_t column = 0; column < size; column++) {
            for (size_t both = row & column; both != 0; both &= both - 1) {  // the parity of the common bits
                values[row * size + column] = -values[row * size + column];
            }
        }
    }
    return values;
}

ggml_tensor* hadamard(ggml_context* ctx, ggml_tensor* x, ggml_tensor* matrix) {
    if (matrix == nullptr) {
        return x;
    }
    const int64_t n = matrix->ne[0];
    const int64_t n_rows = ggml_nelements(x) / n;
    ggml_tensor* rows = ggml_is_contiguous(x) ? ggml_reshape_2d(ctx, x, n, n_rows) : ggml_cont_2d(ctx, x, n, n_rows);
    ggml_tensor* product = ggml_mul_mat(ctx, matrix, rows);
    ggml_mul_mat_set_hint(product, GGML_HINT_SRC0_IS_HADAMARD);  // backends that know a fast transform use it
    return ggml_reshape_4d(ctx, product, x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
}

}  // namespace hw
