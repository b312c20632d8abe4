// Products with weights of 6 bits for AVX2. A vector has 32 inputs of one output: weights as 0 to 63 times signed
// bytes, sums of two inputs within 16 bits. What 32 too much in each weight makes is taken off with the sums of the
// inputs.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernel/product-avx2.h"

namespace hw {
namespace {

inline __m256i load(const void* bytes) { return _mm256_loadu_si256(static_cast<const __m256i*>(bytes)); }

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

// Scales of two parts, 16 bits each, for the eight sums of each.
inline __m256i scales_of(const Q6KBlock& block, int64_t part) {
    return _mm256_set_m128i(_mm_set1_epi16(block.parts[part + 1]), _mm_set1_epi16(block.parts[part]));
}

// out[row * stride], of R rows.
template <int R>
void run(const Q6KBlock* blocks, int64_t n_blocks, const QuantizedRow* rows, float* out, int64_t stride) {
    __m256 sums[R];
    std::fill_n(sums, R, _mm256_setzero_ps());
    for (int64_t b = 0; b < n_blocks; b++) {
        const Q6KBlock& block = blocks[b];
        __m256i whole[R];
        std::fill_n(whole, R, _mm256_setzero_si256());
        for (int64_t half = 0; half < 2; half++) {
            for (int64_t n = 0; n < 4; n++) {
                const __m256i weights = six_bits(block, half, n);
                const __m256i scales = scales_of(block, 8 * half + 2 * n);
                for (int r = 0; r < R; r++) {
                    const __m256i x = load(rows[r].numbers + b * Q6KBlock::n_inputs + 128 * half + 32 * n);
                    whole[r] = _mm256_add_epi32(whole[r], _mm256_madd_epi16(scales, _mm256_maddubs_epi16(weights, x)));
                }
            }
        }
        const __m256i scales = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block.parts)));
        const float scale = _cvtsh_ss(block.scale);
        for (int r = 0; r < R; r++) {
            const __m256i taken = _mm256_madd_epi16(load(rows[r].sums + b * Q6KBlock::n_parts / 2), scales);
            const __m256i dots = _mm256_sub_epi32(whole[r], _mm256_slli_epi32(taken, 5));
            sums[r] = _mm256_fmadd_ps(_mm256_set1_ps(rows[r].scales[b] * scale), _mm256_cvtepi32_ps(dots), sums[r]);
        }
    }
    for (int r = 0; r < R; r++) {
        out[r * stride] = sum(sums[r]);
    }
}

}  // namespace

void multiply_six(const Weights& weights, const std::byte* data, int64_t n_rows, int64_t first, int64_t n_groups,
                  float* out) {
    const int64_t n_blocks = weights.n_in / Q6KBlock::n_inputs;
    const auto row_bytes = static_cast<int64_t>(quantized_bytes(weights.kind, weights.n_in));
    const int64_t last = std::min(8 * (first + n_groups), weights.n_out);
    for (int64_t row = 0; row < n_rows; row += max_tile) {
        QuantizedRow rows[max_tile];
        const int64_t n = std::min(max_tile, n_rows - row);
        for (int64_t r = 0; r < n; r++) {
            rows[r] = quantized_row(weights.kind, weights.n_in, data + (row + r) * row_bytes);
        }
        const auto tile = n == 4 ? run<4> : n == 3 ? run<3> : n == 2 ? run<2> : run<1>;
        for (int64_t output = 8 * first; output < last; output++) {
            const Q6KBlock* blocks = static_cast<const Q6KBlock*>(weights.blocks) + output * n_blocks;
            tile(blocks, n_blocks, rows, out + row * weights.n_out + output, weights.n_out);
        }
    }
}

}  // namespace hw
#endif
