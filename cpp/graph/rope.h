// Building ROPE nodes like one that llama.cpp built: same parameters, other data.
#pragma once

#include <cmath>
#include <cstring>

#include "model/layer-spec.h"

namespace hw {

inline RopeParams rope_params(const ggml_tensor& node) {
    RopeParams rope;
    static_assert(sizeof(rope.values) == sizeof(node.op_params));
    std::memcpy(rope.values.data(), node.op_params, sizeof(node.op_params));
    rope.factors = node.src[2];
    return rope;
}

// data [d, heads, n], positions I32 [n] (or 4 rows of it).
inline ggml_tensor* rope_like(ggml_context* ctx, const RopeParams& rope, ggml_tensor* data, ggml_tensor* positions) {
    ggml_tensor* result = ggml_dup_tensor(ctx, data);
    result->op = GGML_OP_ROPE;
    std::memcpy(result->op_params, rope.values.data(), sizeof(result->op_params));
    result->src[0] = data;
    result->src[1] = positions;
    result->src[2] = rope.factors;
    return result;
}

// The same rotation for what was rotated before: YaRN's magnitude is not applied again.
inline RopeParams without_magnitude(RopeParams rope) {
    constexpr size_t first_float = 5;  // of values
    struct {
        float freq_base, freq_scale, ext_factor, attn_factor, beta_fast, beta_slow;
    } floats;
    std::memcpy(&floats, rope.values.data() + first_float, sizeof(floats));
    floats.attn_factor = floats.ext_factor != 0.0f ? 1.0f / (1.0f + 0.1f * std::log(1.0f / floats.freq_scale)) : 1.0f;
    std::memcpy(rope.values.data() + first_float, &floats, sizeof(floats));
    return rope;
}

}  // namespace hw
