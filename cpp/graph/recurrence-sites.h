// Where llama.cpp's graph has recurrent layers: one node that computes the outputs of all tokens from a state, among
// others that fetch that state (rs_s_copy, cache_r_l*, cache_s_l*) and store the new one. Only the one node is put into
// our graph, as a node of ours that has its states elsewhere; nothing else asks for the others, so they stay behind.
//
//   cache_r_l0 -> GET_ROWS -> CONCAT(, inputs) -> SSM_CONV(, weights) -> outputs
//   cache_s_l0 -> (GET_ROWS) -> SSM_SCAN, or GATED_DELTA_NET, .. -> outputs and the new state
//   cache_r_l0 -> GET_ROWS -> CONCAT(, inputs but the last) -> inputs, each one token late (RWKV)
//
// MiniMax's lightning attention is many nodes, of which the last one is replaced.
#pragma once

#include <map>
#include <unordered_set>
#include <vector>

#include "ggml.h"
#include "kernel/recurrence.h"

namespace hw {

struct RecurrenceSite {
    size_t index;  // in the order of the graph: in ModelSpec::recurrences
    RecurrenceShape shape;
    // What outputs are computed from, beside states, see recurrence/recurrent-nodes.h:
    //   convolution  inputs [T, channels], weights [d_k + 1, channels]; a shift: inputs [channels, T]
    //   diagonal     x [d_v, H, T], dt [H, T], a [n_decay, H], b [d_k, groups, T], c
    //   delta        q [d_k, Hq, T], k [d_k, Hk, T], v [d_v, H, T], g [1 or d_k, H, T], beta [1, H, T]
    //   linear       q [d_k, H, T], k, v [d_v, H, T]; where tokens decay: w [d_k, H, T]; RWKV-6: bonus [d_k, H]
    //   wkv7         r [d_k, H, T], w, k, v [d_v, H, T], a [d_k, H, T], b
    std::vector<const ggml_tensor*> sources;
    // Where llama.cpp keeps the state: on the device where the layer lies. NULL: many nodes read it, not one.
    const ggml_tensor* state = nullptr;
};

using RecurrenceSites = std::map<const ggml_tensor*, RecurrenceSite>;  // by the node whose place the result takes
using StateLeaves = std::unordered_set<const ggml_tensor*>;

// What the graph writes to and is no cache of keys and values. Not all architectures leave them their names.
StateLeaves find_states(ggml_cgraph* graph);
// Throws HW_ERROR_UNSUPPORTED for one that is not known.
RecurrenceSites find_recurrences(ggml_cgraph* graph, const StateLeaves& states);

}  // namespace hw
