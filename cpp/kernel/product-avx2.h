// What the sources of the AVX2 kernel for products (kernel/product.h) share.
#pragma once

#include "kernel/product.h"

namespace hw {

// Rows that are computed together: their sums, four vectors of weights and what is between fit into 16 registers.
constexpr int64_t max_tile = 4;

// As ProductKernel::quantize.
void quantize_avx2(WeightKind kind, const float* x, int64_t n_in, std::byte* row);
// As ProductKernel::multiply, of q6_k.
void multiply_six(const Weights& weights, const std::byte* rows, int64_t n_rows, int64_t first, int64_t n_groups,
                  float* out);

}  // namespace hw
