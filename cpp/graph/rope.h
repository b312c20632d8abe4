// Building ROPE nodes like one that llama.cpp built: same parameters, other data.
#pragma once

#include <cmath>
#include <cstring>

#include "ggml.h"

namespace hw {

// Indices of op_params, as ggml_rope_ext fills them.
constexpr int rope_n_dims = 1;
constexpr int rope_mode = 2;
constexpr int rope_floats = 5;
constexpr int rope_offset = 15;

// data [d, heads, n], positions I32 [n] (or 4 rows of it), factors: F32 or NULL.
inline ggml_tensor* rope_like(ggml_context* ctx, const ggml_tensor& rope, ggml_tensor* data, ggml_tensor* positions,
                              ggml_tensor* factors) {
    ggml_tensor* result = ggml_dup_tensor(ctx, data);
    result->op = GGML_OP_ROPE;
    std::memcpy(result->op_params, rope.op_params, sizeof(rope.op_params));
    result->src[0] = data;
    result->src[1] = positions;
    result->src[2] = factors;
    return result;
}

// The same rotation for what was rotated before: YaRN's magnitude is not applied again.
inline ggml_tensor without_magnitude(const ggml_tensor& rope) {
    struct {
        float freq_base, freq_scale, ext_factor, attn_factor, beta_fast, beta_slow;
    } floats;
    ggml_tensor result = rope;
    std::memcpy(&floats, rope.op_params + rope_floats, sizeof(floats));
    floats.attn_factor = floats.ext_factor != 0.0f ? 1.0f / (1.0f + 0.1f * std::log(1.0f / floats.freq_scale)) : 1.0f;
    std::memcpy(result.op_params + rope_floats, &floats, sizeof(floats));
    return result;
}

}  // namespace hw
