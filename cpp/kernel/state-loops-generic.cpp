// The loops over states for any CPU: vectors of 4 floats, which the compiler maps to what there is.
namespace hw {
namespace {

constexpr int width = 4;
constexpr int tile_vecs = 2;

typedef float Vec __attribute__((vector_size(width * 4)));

inline float sum(Vec v) { return (v[0] + v[2]) + (v[1] + v[3]); }

}  // namespace
}  // namespace hw

#define HW_STATE_LOOPS state_loops_generic
#include "kernel/state-loops-impl.h"
