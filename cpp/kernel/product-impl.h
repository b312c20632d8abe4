// The kernel for products (kernel/product.h), once per instruction set. Included by kernel/product-<isa>.cpp, which
// defines before, with vectors of 256 bits:
//   max_rows: rows that are computed together; with max_groups groups of 8 outputs at once, max_rows / max_groups.
//     Their sums of integers, weights of each group and what is between fit into registers
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

// Asks for n bytes of weights some way behind byte `offset` of `at`: beside the arithmetic of several rows the CPU does
// not read far enough ahead by itself, beside that of one it does. A group has n_blocks, and from `at` on `left` of
// these. What lies behind the last weights is asked for in vain.
template <int R, int G, class Block>
void ask_ahead(const Block* at, size_t offset, size_t n, int64_t left, int64_t n_blocks) {
    constexpr size_t far = 2304;
    if constexpr (R > 1) {
        // Behind its last blocks come those of the other groups, which are being read already, and then the next
        // tile's.
        const bool leaves = left * static_cast<int64_t>(sizeof(Block)) <= static_cast<int64_t>(far);
        const int64_t skipped = leaves ? (G - 1) * n_blocks * static_cast<int64_t>(sizeof(Block)) : 0;
        const auto from = reinterpret_cast<uintptr_t>(at) + offset + far + static_cast<uintptr_t>(skipped);
        for (size_t i = 0; i < n; i += 64) {
            _mm_prefetch(reinterpret_cast<const char*>(from + i), _MM_HINT_T0);
        }
    }
}

}  // namespace
}  // namespace hw

#include "kernel/product-four-impl.h"
#include "kernel/product-six-impl.h"

namespace hw {

extern const Quantize quantize_avx2[3];  // compiled for AVX2, which all of these CPUs have

namespace {

// Groups of outputs share what is loaded of the rows where these have so many inputs together: less than that stays at
// hand in the CPU's first cache, which then reads the weights of one group after the other faster. One row waits for
// weights in any case.
constexpr int64_t min_shared_inputs = 8192;

// Tile<n, G>::run
template <template <int, int> class Tile, int G, int R = max_rows / G>
auto run_of(int64_t n) {
    if constexpr (R > 1) {
        if (n < R) return run_of<Tile, G, R - 1>(n);
    }
    return Tile<R, G>::run;
}

// Outputs from `first` to `end`, G groups at a time as long as there are so many. Returns the first that is left.
template <template <int, int> class Tile, int G>
int64_t multiply_groups(const Weights& weights, const QuantizedRow* rows, int64_t n_rows, int64_t first, int64_t end,
                        float* out) {
    using Block = typename Tile<1, G>::Block;
    constexpr int64_t n_outputs = Tile<1, G>::n_outputs;
    const int64_t n_blocks = weights.n_in / Block::n_inputs;
    const auto run = run_of<Tile, G>(n_rows);
    for (; first + G * n_outputs <= end; first += G * n_outputs) {
        const Block* blocks = static_cast<const Block*>(weights.blocks) + first / n_outputs * n_blocks;
        run(blocks, n_blocks, rows, out + first, weights.n_out);
    }
    return first;
}

template <template <int, int> class Tile>
void multiply_rows(const Weights& weights, const std::byte* data, int64_t n_rows, int64_t first, int64_t n_groups,
                   float* out) {
    const auto row_bytes = static_cast<int64_t>(quantized_bytes(weights.kind, weights.n_in));
    const int64_t end = 8 * (first + n_groups) < weights.n_out ? 8 * (first + n_groups) : weights.n_out;
    constexpr int G = Tile<1, 1>::max_groups;
    for (int64_t row = 0; row < n_rows; row += max_rows) {
        QuantizedRow rows[max_rows];
        const int64_t n = n_rows - row < max_rows ? n_rows - row : max_rows;
        for (int64_t r = 0; r < n; r++) {
            rows[r] = quantized_row(weights.kind, weights.n_in, data + (row + r) * row_bytes);
        }
        float* of_rows = out + row * weights.n_out;
        int64_t output = 8 * first;
        if (n > 1 && n <= max_rows / G && n * weights.n_in >= min_shared_inputs) {
            output = multiply_groups<Tile, G>(weights, rows, n, output, end, of_rows);
        }
        multiply_groups<Tile, 1>(weights, rows, n, output, end, of_rows);
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
