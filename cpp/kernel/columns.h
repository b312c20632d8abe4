// The loops of recurrent layers over states, which are columns of d numbers side by side: the same source compiled for
// each instruction set (kernel/columns-impl.h).
#pragma once

#include <cstdint>

namespace hw {

struct ColumnLoops {
    // A token of a delta net: each column decays, is changed towards its value, and read.
    //   c <- decays c;  c <- c + beta (value - c k) k;  read = c q         values: [n_values], 0 for columns behind
    void (*step)(float* columns, int64_t n, int64_t d, const float* decays, const float* k, const float* q,
                 const float* values, int64_t n_values, float beta, float* reads);
    // reads[j] = column j . x
    void (*read)(const float* columns, int64_t n, int64_t d, const float* x, float* reads);
    // y += sum of x[i] column i
    void (*add)(const float* columns, int64_t n, int64_t d, const float* x, float* y);
    // A token of a diagonal recurrence: column <- decays column + x[j] b;  reads[j] = column . c    decays: [1] or [d]
    void (*scan)(float* columns, int64_t n, int64_t d, const float* decays, int64_t n_decay, const float* x,
                 const float* b, const float* c, float* reads);
    // A token of RWKV-7: c <- decays c + (c a) b + value k;  read = c r      values: as those of step
    void (*wkv7)(float* columns, int64_t n, int64_t d, const float* decays, const float* a, const float* b,
                 const float* k, const float* r, const float* values, int64_t n_values, float* reads);
};

// Those of the best instruction set of this CPU.
const ColumnLoops& column_loops();

}  // namespace hw
