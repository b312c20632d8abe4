// Turning stored keys on by some positions: what makes them the keys of tokens that stand elsewhere.
#pragma once

#include "cache/kv-store.h"

namespace hw {

// keys F32 [d_k, n, Hkv] of a layer as they are stored, contiguous; turns I32 [n] (or 4 rows of it), by how many
// positions -> the same keys turned on, as they are to be stored, F32 [d_k, n, Hkv].
ggml_tensor* turned_keys(ggml_context* ctx, const RopeParams& rope, const KvTensors& layer, ggml_tensor* keys,
                         ggml_tensor* turns);

}  // namespace hw
