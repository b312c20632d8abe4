#include "graph/key-turn.h"

#include "cache/hadamard.h"
#include "graph/rope.h"

namespace hw {

ggml_tensor key_turn_of(const KvLayer& layer) {
    if (layer.key_rope == nullptr) {
        return {};
    }
    ggml_tensor turn = without_magnitude(*layer.key_rope);
    turn.op_params[rope_offset] = static_cast<int32_t>(layer.key_offset);
    return turn;
}

// ROPE takes positions from the third axis, and its plain version computes an angle once for all rows of the second.
ggml_tensor* turned_keys(ggml_context* ctx, const ggml_tensor& key_turn, ggml_tensor* keys, ggml_tensor* matrix,
                         ggml_tensor* distances) {
    ggml_tensor* by_token = ggml_permute(ctx, hadamard(ctx, keys, matrix), 0, 2, 1, 3);    // [d_k, Hkv, n]
    ggml_tensor* turned = rope_like(ctx, key_turn, by_token, distances, key_turn.src[2]);  // src[2]: a weight, or NULL
    return ggml_permute(ctx, hadamard(ctx, turned, matrix), 0, 2, 1, 3);
}

}  // namespace hw
