// The kernel for products for AVX-512 with VNNI (Ice Lake, Zen 4 and later): with vectors of 256 bits, in 32
// registers.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstdint>

namespace hw {
namespace {

constexpr int max_rows = 8;
constexpr int max_groups = 1;

inline __m256i add_dots(__m256i sums, __m256i weights, __m256i x) { return _mm256_dpbusd_epi32(sums, weights, x); }
inline __m256i add_pairs(__m256i sum, __m256i a, __m256i b) { return _mm256_dpwssd_epi32(sum, a, b); }

}  // namespace
}  // namespace hw

#define HW_PRODUCT product_avx512_vnni
#define HW_PRODUCT_NAME "avx512-vnni"
#include "kernel/product-vnni.h"
#endif
