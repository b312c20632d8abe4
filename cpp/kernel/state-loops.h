// The loops of recurrent layers over states, and over tokens as rows: the same source compiled for each instruction set
// (kernel/state-loops-impl.h).
#pragma once

#include <cstdint>

namespace hw {

// A token of a run that goes on where the one before it ends, in the form in which it is read again.
//   delta             k [d_k], v [d_v], decays [n_decay], beta
//   diagonal, linear  k [d_k], v [d_v], decays [n_decay]
//   wkv7              k [d_k], v [d_v], decays [d_k], a [d_k], b [d_k]
struct TokenRows {
    const float* rows;
    int64_t stride;  // from a token to the next
    int64_t n;
    int64_t d_k;
    int64_t d_v;
    int64_t n_decay;  // 1 or d_k
};

struct Matrix {
    const float* data;
    int64_t row;     // numbers from a row to the next
    int64_t column;  // from a column to the next
};

struct StateLoops {
    // out [m, n] += a [m, k] b [k, n]; b and out have their columns side by side.
    void (*multiply)(int64_t m, int64_t n, int64_t k, Matrix a, const float* b, int64_t b_row, float* out,
                     int64_t out_row);
    // x <- factor x; what is so small that its products would be denormal numbers is 0.
    void (*scale)(float* x, int64_t n, float factor);
    // A state as columns of d numbers, side by side: reads[j] = column j . x
    void (*read)(const float* columns, int64_t n, int64_t d, const float* x, float* reads);
    // A token of a diagonal recurrence: column <- decays column + x[j] b;  reads[j] = column . c    decays: [1] or [d]
    void (*scan)(float* columns, int64_t n, int64_t d, const float* decays, int64_t n_decay, const float* x,
                 const float* b, const float* c, float* reads);
    // What x [d_k] reads of a run, from its last token back: y [d_v] += what it reads; x <- what reads what stands
    // before the run. Of a delta net, of a diagonal recurrence or linear attention, of RWKV-7.
    void (*delta_back)(const TokenRows& tokens, float* x, float* y);
    void (*diagonal_back)(const TokenRows& tokens, float* x, float* y);
    void (*wkv7_back)(const TokenRows& tokens, float* x, float* y);
};

// Those of the best instruction set of this CPU.
const StateLoops& state_loops();

}  // namespace hw
