// What the sources of the AVX2 kernel for products (kernel/product.h) share.
#pragma once

#include "kernel/product.h"

namespace hw {

// Rows that are computed together: their sums, four vectors of weights and what is between fit into 16 registers.
constexpr int64_t max_tile = 4;

// As Quantize, for each kind.
void quantize_q4_0_avx2(const float* x, int64_t n_in, int8_t* numbers, float* scales, int32_t* sums);
void quantize_q4_k_avx2(const float* x, int64_t n_in, int8_t* numbers, float* scales, int32_t* sums);
void quantize_q6_k_avx2(const float* x, int64_t n_in, int8_t* numbers, float* scales, int32_t* sums);
// As ProductKernel::multiply, of q6_k.
void multiply_six(const Weights& weights, const std::byte* rows, int64_t n_rows, int64_t first, int64_t n_groups,
                  float* out);

}  // namespace hw
