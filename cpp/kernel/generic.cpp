// The kernel for any CPU: vectors of 4 floats, which the compiler maps to what there is.
#include <cstdint>

#include "ggml.h"

namespace hw {
namespace {

constexpr int width = 4;     // floats in a vector
constexpr int max_vecs = 2;  // vectors of queries in a tile
constexpr int dot_rows = 4;  // up to so many rows, vectors run along the head size instead of the queries
constexpr int dot_sums = 8;  // registers that sum then
constexpr int tile_height(int n_vecs) { return n_vecs == 1 ? 8 : 4; }  // of the register tile; 16 registers

typedef float Vec __attribute__((vector_size(width * 4)));

typedef uint32_t Bits __attribute__((vector_size(width * 4)));
typedef uint16_t Halves __attribute__((vector_size(width * 2), aligned(2), may_alias));

// Exponent and mantissa move to where a float has them; the bias of the exponent is made up for by multiplying.
inline Vec load_f16(const ggml_fp16_t* p) {
    const Bits bits = __builtin_convertvector(*reinterpret_cast<const Halves*>(p), Bits);
    const Bits magnitude = (bits & 0x7fffu) << 13;
    const Bits infinite = (Bits)(magnitude >= 0x0f800000u) & 0x7f800000u;  // also what is not a number
    const Vec scaled = (Vec)magnitude * 0x1p112f;
    return (Vec)((Bits)scaled | infinite | (bits & 0x8000u) << 16);
}

inline float sum(Vec v) { return (v[0] + v[2]) + (v[1] + v[3]); }

}  // namespace
}  // namespace hw

#define HW_ATTN_ISA generic
#include "kernel/kernel-impl.h"
