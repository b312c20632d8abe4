#include "kernel/product.h"

namespace hw {

#if defined(__x86_64__)
extern const ProductKernel product_avx2;  // compiled with its own flags
extern const ProductKernel product_beside_avx512;
#endif

namespace {

int64_t n_blocks(WeightKind kind, int64_t n_in) {
    return n_in / (kind == WeightKind::q4_0 ? Q4Block::n_inputs : Q4KBlock::n_inputs);
}

int64_t n_sums(WeightKind kind, int64_t n_in) {
    return n_blocks(kind, n_in) * (kind == WeightKind::q4_0 ? 1 : Q4KBlock::n_parts / 2);
}

}  // namespace

size_t quantized_bytes(WeightKind kind, int64_t n_in) {
    const int64_t n = n_blocks(kind, n_in) + n_sums(kind, n_in);
    return static_cast<size_t>(n_in) + static_cast<size_t>(n) * sizeof(int32_t);
}

QuantizedRow quantized_row(WeightKind kind, int64_t n_in, const std::byte* row) {
    const auto* scales = reinterpret_cast<const float*>(row + n_in);
    return {reinterpret_cast<const int8_t*>(row), scales,
            reinterpret_cast<const int32_t*>(scales + n_blocks(kind, n_in))};
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
