#include "attention/mask.h"

#include <algorithm>
#include <cmath>

#include "graph/graph-inputs.h"

namespace hw {

ggml_tensor* AttentionMasks::of(ggml_context* ctx, const Window& window, bool has_alibi, int64_t n_keys,
                                int64_t n_rows) {
    for (const Mask& mask : masks_) {
        if (mask.window == window && mask.has_alibi == has_alibi) {
            return mask.tensor;
        }
    }
    ggml_tensor* tensor = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, n_keys, n_rows);
    ggml_set_name(tensor, "mask");
    ggml_set_input(tensor);
    masks_.push_back({window, has_alibi, tensor});
    return tensor;
}

void AttentionMasks::set_inputs(const Pass& pass, const PassGroup& group, const std::vector<int64_t>& first_key) const {
    for (const Mask& mask : masks_) {
        set_input(pass, group, first_key, mask);
    }
}

void AttentionMasks::set_input(const Pass& pass, const PassGroup& group, const std::vector<int64_t>& first_key,
                               const Mask& mask) {
    const size_t n_keys = static_cast<size_t>(mask.tensor->ne[0]);
    const size_t n_rows = static_cast<size_t>(mask.tensor->ne[1]);
    std::vector<ggml_fp16_t> values(n_rows * n_keys, ggml_fp32_to_fp16(-INFINITY));
    for (int32_t n = 0; n < group.n_pairs; n++) {
        const size_t i = static_cast<size_t>(group.first_pair + n);
        const PassPair& pair = pass.pairs[i];
        ggml_fp16_t* row = values.data() + static_cast<size_t>(pair.token - group.first_token) * n_keys + first_key[i];
        const int32_t position = pass.view_positions[static_cast<size_t>(pair.token)];
        const int32_t first = mask.window.first_visible(position, pair.distance);
        if (!mask.has_alibi) {
            std::fill(row + std::min(first, pair.n_visible), row + pair.n_visible, ggml_fp16_t{0});
            continue;
        }
        for (int32_t key = first; key < pair.n_visible; key++) {
            row[key] = ggml_fp32_to_fp16(static_cast<float>(key - pair.distance));
        }
    }
    for (size_t row = static_cast<size_t>(group.n_tokens); row < n_rows; row++) {
        values[row * n_keys] = 0;  // a row that fills up the batch sees one key, lest its softmax be 0/0
    }
    hw::set_input(mask.tensor, values);
}

}  // namespace hw
