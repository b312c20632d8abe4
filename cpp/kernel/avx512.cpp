// The kernel for AVX-512: 32 registers of 16 floats; a multiply-add takes its broadcast operand from memory.
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // both of GCC 12's own immintrin.h: _mm512_undefined_ps
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "ggml.h"

namespace hw {
namespace {

constexpr int width = 16;     // floats in a vector
constexpr int max_vecs = 4;   // vectors of queries in a tile
constexpr int dot_rows = 8;   // up to so many rows, vectors run along the head size instead of the queries
constexpr int dot_sums = 16;  // registers that sum then
constexpr int tile_height(int n_vecs) { return n_vecs <= 2 ? 12 : n_vecs == 3 ? 8 : 6; }  // of the register tile

typedef float Vec __attribute__((vector_size(width * 4)));

inline Vec load_f16(const ggml_fp16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

inline float sum(Vec v) { return _mm512_reduce_add_ps(v); }

}  // namespace
}  // namespace hw

#define HW_ATTN_ISA avx512
#include "kernel/kernel-impl.h"
#endif
