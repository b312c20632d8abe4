#include "graph/key-turn.h"

#include "cache/hadamard.h"
#include "graph/rope.h"

namespace hw {

// ROPE takes positions from the third axis, and its plain version computes an angle once for all rows of the second.
ggml_tensor* turned_keys(ggml_context* ctx, const RopeParams& rope, const KvTensors& layer, ggml_tensor* keys,
                         ggml_tensor* turns) {
    ggml_tensor* by_token = ggml_permute(ctx, hadamard(ctx, keys, layer.hadamard_k), 0, 2, 1, 3);  // [d_k, Hkv, n]
    ggml_tensor* turned = hadamard(ctx, rope_like(ctx, rope, by_token, turns), layer.hadamard_k);
    return ggml_permute(ctx, within_limit(ctx, turned, layer.limit_k), 0, 2, 1, 3);
}

}  // namespace hw
