#include "kernel/product.h"

namespace hw {

#if defined(__x86_64__)
extern const ProductKernel product_avx2;           // compiled with its own flags
extern const ProductKernel product_beside_avx512;  // ggml has kernels for many rows there
#endif

namespace {

int64_t n_blocks(WeightKind kind, int64_t n_in) {
    return n_in / (kind == WeightKind::q4_0 ? Q4Block::n_inputs : Q4KBlock::n_inputs);
}

// In int32.
int64_t sums_a_block(WeightKind kind) {
    switch (kind) {
        case WeightKind::q4_0:
            return 1;
        case WeightKind::q4_k:
            return Q4KBlock::n_parts / 2;
        case WeightKind::q6_k:
            break;
    }
    return Q6KBlock::n_parts / 2;
}

}  // namespace

size_t quantized_bytes(WeightKind kind, int64_t n_in) {
    const int64_t n = n_blocks(kind, n_in) * (1 + sums_a_block(kind));
    return static_cast<size_t>(n_in) + static_cast<size_t>(n) * sizeof(int32_t);
}

QuantizedRow quantized_row(WeightKind kind, int64_t n_in, const std::byte* row) {
    const auto* scales = reinterpret_cast<const float*>(row + n_in);
    return {reinterpret_cast<const int8_t*>(row), scales,
            reinterpret_cast<const int32_t*>(scales + n_blocks(kind, n_in))};
}

void quantize_row(const ProductKernel& kernel, WeightKind kind, const float* x, int64_t n_in, std::byte* row) {
    const QuantizedRow parts = quantized_row(kind, n_in, row);
    kernel.quantize_for[static_cast<size_t>(kind)](x, n_in, const_cast<int8_t*>(parts.numbers),
                                                   const_cast<float*>(parts.scales), const_cast<int32_t*>(parts.sums));
}

const ProductKernel* product_kernel() {
#if defined(__x86_64__)
    static const bool avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    static const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
    if (avx512) return &product_beside_avx512;
    if (avx2) return &product_avx2;
#endif
    return nullptr;
}

}  // namespace hw
