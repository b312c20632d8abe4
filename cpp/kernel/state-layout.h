// A state as ggml's own operations have it: F32, side by side, the first dimension innermost.
//
//   kind          ggml's                                     ours, see kernel/recurrence.h
//   convolution   [d_k, channels], the oldest input first    [d_k, channels] in C's order, the newest first
//   diagonal      [d_k, d_v, H]                              decays, then as ggml has it
//   linear        [d_v, d_k, H]                              decays, then with rows for columns
//   delta, wkv7   [d_k, d_v, H]                              with rows for columns
//
// Both take the part of thread ith of nth.
#pragma once

#include "kernel/recurrence.h"

namespace hw {

// all: a state of all recurrences; NULL: nothing stands before, the state is 0.
void state_to_ggml(const Recurrence& recurrence, const float* all, float* state, int ith, int nth);
// Decays become 0: nothing before a state is read.
void state_from_ggml(const Recurrence& recurrence, const float* state, float* all, int ith, int nth);

}  // namespace hw
