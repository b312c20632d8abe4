// The loops over states for AVX-512.
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // both of GCC 12's own immintrin.h: _mm512_undefined_ps
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

namespace hw {
namespace {

constexpr int width = 16;
constexpr int tile_vecs = 4;

typedef float Vec __attribute__((vector_size(width * 4)));

inline float sum(Vec v) { return _mm512_reduce_add_ps(v); }

}  // namespace
}  // namespace hw

#define HW_STATE_LOOPS state_loops_avx512
#include "kernel/state-loops-impl.h"
#endif
