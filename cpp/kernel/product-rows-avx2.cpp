// Rows of activations, quantized to 8 bits for products with AVX2: as product-plain.cpp has it.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernel/product.h"

namespace hw {
namespace {

inline float largest_of(__m256 v) {
    __m128 max = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    max = _mm_max_ps(max, _mm_movehl_ps(max, max));
    return _mm_cvtss_f32(_mm_max_ss(max, _mm_movehdup_ps(max)));
}

inline __m256 magnitude(__m256 v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }

// The largest magnitude of n numbers, a multiple of 8.
inline float largest_of(const float* x, int64_t n) {
    __m256 max = _mm256_setzero_ps();
    for (int64_t i = 0; i < n; i += 8) {
        max = _mm256_max_ps(max, magnitude(_mm256_loadu_ps(x + i)));
    }
    return largest_of(max);
}

struct HalfSums {
    int32_t first;
    int32_t last;
};

// 32 numbers times a factor, to the nearest ones of 8 bits -> the sums of 16 each.
inline HalfSums round32(const float* x, float factor, int8_t* numbers) {
    __m256i wide[4];
    for (int64_t i = 0; i < 4; i++) {
        wide[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(factor)));
    }
    const __m256i words =
        _mm256_packs_epi16(_mm256_packs_epi32(wide[0], wide[1]), _mm256_packs_epi32(wide[2], wide[3]));
    // Packing goes by halves of vectors: fours of numbers come in the order 0 2 4 6 1 3 5 7.
    const __m256i bytes = _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(numbers), bytes);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
    const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    const __m256i twos = _mm256_add_epi32(fours, _mm256_srli_epi64(fours, 32));
    const __m256i ones = _mm256_add_epi32(twos, _mm256_unpackhi_epi64(twos, twos));
    return {_mm256_extract_epi32(ones, 0), _mm256_extract_epi32(ones, 4)};
}

void quantize_q4_0(const float* x, int64_t n_in, int8_t* numbers, float* scales, int32_t* sums) {
    for (int64_t block = 0; block < n_in / Q4Block::n_inputs; block++) {
        const float* from = x + block * Q4Block::n_inputs;
        const float largest = largest_of(from, Q4Block::n_inputs);
        scales[block] = _cvtsh_ss(_cvtss_sh(largest / 127.0f, _MM_FROUND_TO_NEAREST_INT));
        const float factor = largest != 0.0f ? 127.0f / largest : 0.0f;
        const HalfSums halves = round32(from, factor, numbers + block * Q4Block::n_inputs);
        sums[block] = 8 * (halves.first + halves.last);
    }
}

template <int64_t n_parts>
void quantize_k(const float* x, int64_t n_in, int8_t* numbers, float* scales, int32_t* sums) {
    constexpr int64_t n_inputs = 256;
    for (int64_t block = 0; block < n_in / n_inputs; block++) {
        const float* from = x + block * n_inputs;
        const float magnitude = largest_of(from, n_inputs);
        // The first of that magnitude gives the sign. There is none where all are NaN: the scale says so then.
        const float* end = from + n_inputs;
        const float* first = std::find_if(from, end, [&](float v) { return v == magnitude || v == -magnitude; });
        const float largest = first != end ? *first : magnitude;
        const float factor = magnitude != 0.0f ? -127.0f / largest : 0.0f;
        scales[block] = magnitude != 0.0f ? 1.0f / factor : 0.0f;
        int16_t parts[n_parts];
        for (int64_t i = 0; i < n_inputs / 32; i++) {
            const HalfSums halves = round32(from + 32 * i, factor, numbers + block * n_inputs + 32 * i);
            if (n_parts == 8) {
                parts[i] = static_cast<int16_t>(halves.first + halves.last);
            } else {
                parts[2 * i] = static_cast<int16_t>(halves.first);
                parts[2 * i + 1] = static_cast<int16_t>(halves.last);
            }
        }
        std::memcpy(sums + block * n_parts / 2, parts, sizeof parts);
    }
}

}  // namespace

extern const Quantize quantize_avx2[3];
const Quantize quantize_avx2[3] = {quantize_q4_0, quantize_k<Q4KBlock::n_parts>, quantize_k<Q6KBlock::n_parts>};

}  // namespace hw
#endif
