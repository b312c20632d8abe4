// The loops of recurrent layers over states, which are columns of d numbers side by side: the same source compiled for
// each instruction set (kernel/columns-impl.h).
#pragma once

#include <cstdint>

namespace hw {

struct ColumnLoops {
    // reads[j] = column j . x
    void (*read)(const float* columns, int64_t n, int64_t d, const float* x, float* reads);
    // A token of a diagonal recurrence: column <- decays column + x[j] b;  reads[j] = column . c    decays: [1] or [d]
    void (*scan)(float* columns, int64_t n, int64_t d, const float* decays, int64_t n_decay, const float* x,
                 const float* b, const float* c, float* reads);
};

// Those of the best instruction set of this CPU.
const ColumnLoops& column_loops();

}  // namespace hw
