// The kernel for products for AVX2: sums of 16 bits, two for each output. They hold those of all 32 inputs of a scale:
// 16 * 15 * 128 = 30720.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstdint>

namespace hw {
namespace {

constexpr int max_rows = 8;
constexpr int max_groups = 2;

inline __m256i add_dots(__m256i sums, __m256i weights, __m256i x) {
    return _mm256_add_epi16(sums, _mm256_maddubs_epi16(weights, x));
}
inline __m256i whole(__m256i sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }
inline __m256i scaled(__m256i sums, __m256i scales) { return _mm256_madd_epi16(sums, scales); }
inline __m256i wide(__m128i eight) {  // each twice
    return _mm256_set_m128i(_mm_unpackhi_epi16(eight, eight), _mm_unpacklo_epi16(eight, eight));
}
inline __m256i add_pairs(__m256i sum, __m256i a, __m256i b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }

}  // namespace
}  // namespace hw

#define HW_PRODUCT product_avx2
#define HW_PRODUCT_NAME "avx2"
#include "kernel/product-impl.h"
#endif
