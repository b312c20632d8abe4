// Quantized keys and values are stored multiplied by a Hadamard matrix, as in llama.cpp: it spreads the few large
// numbers of a row over all of them, so that they no longer coarsen the quantization of the others. The matrix is
// orthonormal and its own inverse: queries multiplied by it give the same scores, and a result multiplied by it is the
// result.
#pragma once

#include <vector>

#include "ggml.h"

namespace hw {

// The size of the matrix for rows of d numbers, at most `most`. 0: they are stored as they are.
int64_t hadamard_size(ggml_type type, int64_t d, int64_t most);

std::vector<float> hadamard_values(int64_t n);  // [n, n]

// x [d, ...] F32, n of the d numbers at a time multiplied by the matrix [n, n]; x itself where there is no matrix.
ggml_tensor* hadamard(ggml_context* ctx, ggml_tensor* x, ggml_tensor* matrix);

}  // namespace hw
