// The kernel for products (kernel/product.h), once per instruction set. Included by kernel/product-<isa>.cpp, which
// defines before, with vectors of 256 bits:
//   max_tile: rows computed together; their sums, four vectors of weights and what is between fit into registers
//   add_dots(sums, weights, x): sums and the products of four inputs of each of 8 outputs
//   whole(sums): of each output one sum, of 32 bits
//   scaled(sums, scales): whole sums times scales, in the form that wide(eight words) gives them
//   add_pairs(sum, a, b): sums of 32 bits, and of a and b the products of two words each
//   HW_PRODUCT, HW_PRODUCT_NAME: the kernel that is defined here, and its name.
// As in kernel-impl.h everything is in an anonymous namespace, and nothing of std:: is called. Sums of integers are
// exact, and floats are computed here: all instruction sets give the same bits.
#pragma once

#include "kernel/product.h"

namespace hw {
namespace {

inline __m256i load(const void* bytes) { return _mm256_loadu_si256(static_cast<const __m256i*>(bytes)); }

// Asks for n bytes of weights some way behind `at`: beside the arithmetic of several rows the CPU does not read far
// enough ahead by itself, beside that of one it does. What lies behind the last weights is asked for in vain.
template <int R, size_t n>
void ask_ahead(const void* at) {
    constexpr size_t far = 2304;
    for (size_t i = 0; R > 1 && i < n; i += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(at) + far + i), _MM_HINT_T0);
    }
}

}  // namespace
}  // namespace hw

#include "kernel/product-four-impl.h"
#include "kernel/product-six-impl.h"

namespace hw {

extern const Quantize quantize_avx2[3];  // compiled for AVX2, which all of these CPUs have

namespace {

// Tile<n>::run
template <template <int> class Tile, int R = max_tile>
auto run_of(int64_t n) {
    if constexpr (R > 1) {
        if (n < R) return run_of<Tile, R - 1>(n);
    }
    return Tile<R>::run;
}

template <template <int> class Tile>
void multiply_rows(const Weights& weights, const std::byte* data, int64_t n_rows, int64_t first, int64_t n_groups,
                   float* out) {
    using Block = typename Tile<1>::Block;
    constexpr int64_t n_outputs = Tile<1>::n_outputs;
    const int64_t n_blocks = weights.n_in / Block::n_inputs;
    const auto row_bytes = static_cast<int64_t>(quantized_bytes(weights.kind, weights.n_in));
    const int64_t end = 8 * (first + n_groups) < weights.n_out ? 8 * (first + n_groups) : weights.n_out;
    for (int64_t row = 0; row < n_rows; row += max_tile) {
        QuantizedRow rows[max_tile];
        const int64_t n = n_rows - row < max_tile ? n_rows - row : max_tile;
        for (int64_t r = 0; r < n; r++) {
            rows[r] = quantized_row(weights.kind, weights.n_in, data + (row + r) * row_bytes);
        }
        const auto run = run_of<Tile>(n);
        for (int64_t output = 8 * first; output < end; output += n_outputs) {
            const Block* blocks = static_cast<const Block*>(weights.blocks) + output / n_outputs * n_blocks;
            run(blocks, n_blocks, rows, out + row * weights.n_out + output, weights.n_out);
        }
    }
}

void multiply(const Weights& weights, const std::byte* rows, int64_t n_rows, int64_t first, int64_t n_groups,
              float* out) {
    switch (weights.kind) {
        case WeightKind::q4_0:
            return multiply_rows<Q4Tile>(weights, rows, n_rows, first, n_groups, out);
        case WeightKind::q4_k:
            return multiply_rows<Q4KTile>(weights, rows, n_rows, first, n_groups, out);
        case WeightKind::q6_k:
            return multiply_rows<Q6KTile>(weights, rows, n_rows, first, n_groups, out);
    }
}

}  // namespace

extern const ProductKernel HW_PRODUCT;
const ProductKernel HW_PRODUCT = {HW_PRODUCT_NAME, quantize_avx2, multiply};

}  // namespace hw
