// The loops over states for AVX2.
#if defined(__x86_64__)
#include <immintrin.h>

namespace hw {
namespace {

constexpr int width = 8;
constexpr int tile_vecs = 2;

typedef float Vec __attribute__((vector_size(width * 4)));

inline float sum(Vec v) {
    const __m128 halves = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 pairs = _mm_add_ps(halves, _mm_movehl_ps(halves, halves));
    return _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)));
}

}  // namespace
}  // namespace hw

#define HW_STATE_LOOPS state_loops_avx2
#include "kernel/state-loops-impl.h"
#endif
