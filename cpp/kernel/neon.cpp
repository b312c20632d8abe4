// The kernel for 64-bit ARM: 32 registers of 4 floats.
#if defined(__aarch64__)
#include <arm_neon.h>

#include "ggml.h"

namespace hw {
namespace {

constexpr int width = 4;      // floats in a vector
constexpr int max_vecs = 4;   // vectors of queries in a tile
constexpr int dot_rows = 4;   // up to so many rows, vectors run along the head size instead of the queries
constexpr int dot_sums = 16;  // registers that sum then
constexpr int tile_height(int n_vecs) { return n_vecs <= 2 ? 12 : n_vecs == 3 ? 8 : 6; }  // of the register tile

typedef float Vec __attribute__((vector_size(width * 4)));

inline Vec load_f16(const ggml_fp16_t* p) { return (Vec)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }

inline float sum(Vec v) { return vaddvq_f32((float32x4_t)v); }

}  // namespace
}  // namespace hw

#define HW_ATTN_ISA neon
#include "kernel/kernel-impl.h"
#endif
