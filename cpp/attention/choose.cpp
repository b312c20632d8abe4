#include "attention/choose.h"

#include <algorithm>

#include "attention/flash.h"
#include "base/error.h"

namespace hw {

AttentionChoice::AttentionChoice(const ModelSpec& spec, hw_attention wanted, ggml_type type_k)
    : wants_ggml_(wanted == HW_ATTENTION_GGML || wanted == HW_ATTENTION_COMPOSED) {
    for (const auto& [index, layer] : spec.layers) {
        const bool is_host = is_host_memory(layer.buffer_type);
        if (wanted == HW_ATTENTION_FUSED && !is_host) {
            fail(HW_ERROR_ARGUMENT, "fused attention reads CPU memory, and layer %d lies on %s: use 'auto'", index,
                 ggml_backend_dev_name(ggml_backend_buft_get_device(layer.buffer_type)));
        }
        if ((wanted == HW_ATTENTION_AUTO || wanted == HW_ATTENTION_FUSED) && is_host) {
            fused_layers_.insert(index);
        }
    }
    rules_.keys_are_turned = std::any_of(spec.layers.begin(), spec.layers.end(),
                                         [](const auto& entry) { return entry.second.key_rope.has_value(); });
    rules_.may_mirror = !ggml_is_quantized(type_k);
    rules_.has_unturned = std::any_of(spec.layers.begin(), spec.layers.end(), [](const auto& entry) {
        return !entry.second.is_v_in_k || !entry.second.key_rope;
    });
    may_flash_ = wanted != HW_ATTENTION_COMPOSED && fused_layers_.size() < spec.layers.size();
}

void AttentionChoice::ask_devices(const ModelSpec& spec, const KvStore& store) {
    has_flash_ = may_flash_ && FlashAttention::is_supported(spec, store);
}

std::optional<FlashPlan> AttentionChoice::flash_plan(const Pass& pass, const BlockTable& table,
                                                     const KeptMirrors& kept) const {
    return has_flash_ ? plan_flash(pass, table, rules_, kept) : std::nullopt;
}

AttentionForm AttentionChoice::form(int layer, const Pass& pass) const {
    if (is_fused(layer)) {
        return AttentionForm::fused;
    }
    return pass.flash ? AttentionForm::flash : AttentionForm::composed;
}

}  // namespace hw
