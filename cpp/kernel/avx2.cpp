// The kernel for AVX2 + FMA + F16C: 16 registers of 8 floats.
#if defined(__x86_64__)
#include <immintrin.h>

#include "ggml.h"

namespace hw {
namespace {

constexpr int width = 8;     // floats in a vector
constexpr int max_vecs = 2;  // vectors of queries in a tile
constexpr int dot_rows = 4;  // up to so many rows, vectors run along the head size instead of the queries
constexpr int dot_sums = 8;  // registers that sum then
constexpr int tile_height(int n_vecs) { return n_vecs == 1 ? 10 : 6; }  // of the register tile

typedef float Vec __attribute__((vector_size(width * 4)));

inline Vec load_f16(const ggml_fp16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

inline float sum(Vec v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

}  // namespace
}  // namespace hw

#define HW_ATTN_ISA avx2
#include "kernel/kernel-impl.h"
#endif
