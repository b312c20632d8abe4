// Products with weights of 6 bits, for kernel/product-impl.h. A vector has 32 inputs of one output: weights as 0 to 63
// times signed bytes, sums of two inputs within 16 bits. What 32 too much in each weight makes is taken off with the
// sums of the inputs.
#pragma once

#include "kernel/product.h"

namespace hw {
namespace {

inline float sum(__m256 v) {
    const __m128 four = _mm_add_ps(_mm256_extractf128_ps(v, 1), _mm256_castps256_ps128(v));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// 32 weights of a half, n of 0 to 3: their six bits.
inline __m256i six_bits(const Q6KBlock& block, int64_t half, int64_t n) {
    const __m256i four = _mm256_set1_epi8(15);
    const __m256i two = _mm256_set1_epi8(48);
    const __m256i bytes = load(block.low + 64 * half + 32 * (n % 2));
    const __m256i low = _mm256_and_si256(n < 2 ? bytes : _mm256_srli_epi16(bytes, 4), four);
    const __m256i high = load(block.high + 32 * half);
    const __m256i moved = n == 0   ? _mm256_slli_epi16(high, 4)
                          : n == 1 ? _mm256_slli_epi16(high, 2)
                          : n == 2 ? high
                                   : _mm256_srli_epi16(high, 2);
    return _mm256_or_si256(low, _mm256_and_si256(moved, two));
}

// 16 bits each: of even parts, of odd ones.
inline __m256i halves_of(__m128i parts) {
    return _mm256_cvtepi8_epi16(
        _mm_shuffle_epi8(parts, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)));
}

// Scales of two parts, the pair-th of these, for the eight sums of each.
inline __m256i scales_of(__m256i halves, int pair) {
    return _mm256_shuffle_epi8(halves, _mm256_set1_epi16(static_cast<int16_t>(514 * pair + 256)));
}

// Of R rows, one output: out[row * stride]. Inputs are taken from memory 32 at a time, so that outputs side by side
// would save nothing.
template <int R, int G>
struct Q6KTile {
    using Block = Q6KBlock;
    static constexpr int64_t n_outputs = 1;
    static constexpr int max_groups = 1;

    static void run(const Block* blocks, int64_t n_blocks, const QuantizedRow* rows, float* out, int64_t stride) {
        __m256 sums[R] = {};
        for (int64_t b = 0; b < n_blocks; b++) {
            const Block& block = blocks[b];
            ask_ahead<R, G>(&block, 0, sizeof(Block), n_blocks - b, n_blocks);
            const __m128i parts = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block.parts));
            const __m256i halves = halves_of(parts);
            __m256i dots[R] = {};
            for (int half = 0; half < 2; half++) {
                for (int n = 0; n < 4; n++) {
                    const __m256i weights = six_bits(block, half, n);
                    const __m256i scales = scales_of(halves, 4 * half + n);
                    for (int r = 0; r < R; r++) {
                        const __m256i x = load(rows[r].numbers + b * Block::n_inputs + 128 * half + 32 * n);
                        dots[r] = add_pairs(dots[r], scales, _mm256_maddubs_epi16(weights, x));
                    }
                }
            }
            const __m256i scales = _mm256_cvtepi8_epi16(parts);
            const float scale = _cvtsh_ss(block.scale);
            for (int r = 0; r < R; r++) {
                const __m256i taken = _mm256_madd_epi16(load(rows[r].sums + b * Block::n_parts / 2), scales);
                const __m256i less = _mm256_sub_epi32(dots[r], _mm256_slli_epi32(taken, 5));
                sums[r] = _mm256_fmadd_ps(_mm256_set1_ps(rows[r].scales[b] * scale), _mm256_cvtepi32_ps(less), sums[r]);
            }
        }
        for (int r = 0; r < R; r++) {
            out[r * stride] = sum(sums[r]);
        }
    }
};

}  // namespace
}  // namespace hw
