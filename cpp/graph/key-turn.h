// Rotating stored keys on by some positions: what makes them the keys of tokens that stand elsewhere.
#pragma once

#include "cache/kv-store.h"
#include "graph/source-graph.h"

namespace hw {

// The ROPE node that turns a layer's keys on, by value: the graph that it was read from does not live on. Keys that are
// not rotated have none: op is GGML_OP_NONE.
ggml_tensor key_turn_of(const KvLayer& layer);

inline bool turns(const ggml_tensor& key_turn) { return key_turn.op == GGML_OP_ROPE; }

// keys F32 [d_k, n, Hkv] as they are stored, contiguous; matrix: of their layer, NULL where there is none; distances
// I32 [n] (or 4 rows of it) -> the same keys turned on, F32 [d_k, n, Hkv] (permuted).
ggml_tensor* turned_keys(ggml_context* ctx, const ggml_tensor& key_turn, ggml_tensor* keys, ggml_tensor* matrix,
                         ggml_tensor* distances);

}  // namespace hw
