#include "attention/flash.h"

#include <algorithm>

#include "attention/flash-plan.h"
#include "attention/group-rows.h"
#include "cache/hadamard.h"
#include "graph/graph-inputs.h"
#include "graph/key-turn.h"
#include "model/devices.h"
#include "model/ggml-context.h"

namespace hw {

namespace {

// Keys read by one flash attention as of one block that begins at 0.
ggml_tensor* flash_attention(ggml_context* ctx, const AttentionSpec& spec, ggml_tensor* q, ggml_tensor* k,
                             ggml_tensor* v, ggml_tensor* mask, ggml_tensor* sinks) {
    ggml_tensor* result = ggml_flash_attn_ext(ctx, q, k, v, mask, spec.scale, spec.max_bias, spec.soft_cap);
    ggml_flash_attn_ext_add_sinks(result, sinks);
    ggml_prec_set_acc(result, GGML_PREC_F32);
    return result;
}

// The operations of one token on the smallest run of cells, for asking the device.
bool is_attention_supported(ggml_context* ctx, const AttentionSpec& spec, const LayerSpec& layer,
                            const KvTensors& stored) {
    ggml_tensor* k = cells_of(ctx, stored.k, 0, flash_step);
    ggml_tensor* v = layer.is_v_in_k ? values_in_keys(ctx, k, layer.d_v) : cells_of(ctx, stored.v, 0, flash_step);
    ggml_tensor* q = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, layer.d_k, 1, spec.n_head);
    ggml_tensor* mask = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, flash_step, 1);
    ggml_tensor* sinks = spec.has_sinks ? ggml_new_tensor_1d(ctx, GGML_TYPE_F32, spec.n_head) : nullptr;
    ggml_tensor* heads = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, flash_step, layer.n_head_kv);
    ggml_backend_dev_t device = device_of(stored.k);
    return ggml_backend_dev_supports_op(device, flash_attention(ctx, spec, q, k, v, mask, sinks)) &&
           ggml_backend_dev_supports_op(device, ggml_get_rows(ctx, stored.k, heads)) &&
           (layer.is_v_in_k || ggml_backend_dev_supports_op(device, ggml_get_rows(ctx, stored.v, heads)));
}

// Few sizes, so that graphs serve again: to build one takes longer than to copy twice as many cells.
int64_t padded(int64_t n_copied) {
    int64_t n = 64;
    while (n < n_copied) {
        n *= 2;
    }
    return n_copied > 0 ? n : 0;
}

}  // namespace

FlashAttention::FlashAttention(const Pass& pass, int32_t n_rows, const ScratchCells& scratch)
    : n_rows_(n_rows),
      runs_(pass.flash->runs),
      group_rows_(pass.rows_of_groups(n_rows)),
      scratch_(scratch),
      keys_{padded(pass.flash->n_keys), {}},
      values_{padded(pass.flash->n_values), {}},
      masks_(runs_.size()) {}

bool FlashAttention::is_supported(const ModelSpec& model, const KvStore& store) {
    const ggml_context_ptr ctx = new_context(model.attentions.size() * 16);
    return std::all_of(model.attentions.begin(), model.attentions.end(), [&](const AttentionSpec& spec) {
        const LayerSpec& layer = model.layers.at(spec.layer);
        return is_host_memory(layer.buffer_type) ||
               is_attention_supported(ctx.get(), spec, layer, store.layer(spec.layer));
    });
}

bool FlashAttention::serves(const Pass& pass) const {
    return pass.flash && pass.flash->runs == runs_ && pass.rows_of_groups(n_rows_) == group_rows_ &&
           padded(pass.flash->n_keys) == keys_.n && padded(pass.flash->n_values) == values_.n;
}

int64_t FlashAttention::n_scores(const Pass& /*pass*/) const {
    int64_t n = 0;
    for (size_t i = 0; i < runs_.size(); i++) {
        n += runs_[i].n_cells * group_rows_[i];
    }
    return n;
}

// Stored keys or values with the copies that no position turns.
ggml_tensor* FlashAttention::copied(const SiteInputs& in, ggml_tensor* stored) {
    if (values_.n == 0) {
        return stored;
    }
    if (values_.to == nullptr) {
        values_.to = new_input(in.ctx, GGML_TYPE_I64, values_.n, "mirror_values_to");
    }
    ggml_tensor* rows = ggml_get_rows(in.ctx, stored, values_.from.of(in.ctx, values_.n, stored->ne[2]));
    return ggml_set_rows(in.ctx, stored, rows, values_.to);
}

// Stored keys with the copies that are turned on.
ggml_tensor* FlashAttention::turned(const SiteInputs& in) {
    ggml_tensor* stored = in.stored.k;
    if (keys_.n == 0) {
        return stored;
    }
    if (keys_.to == nullptr) {
        keys_.to = new_input(in.ctx, GGML_TYPE_I64, keys_.n, "mirror_keys_to");
        turns_ = new_input(in.ctx, GGML_TYPE_I32, keys_.n * in.n_pos_per_token, "mirror_turns");
    }
    ggml_tensor* keys = ggml_get_rows(in.ctx, stored, keys_.from.of(in.ctx, keys_.n, stored->ne[2]));
    keys = turned_keys(in.ctx, *in.layer.key_rope, in.stored, keys, turns_);
    return ggml_set_rows(in.ctx, stored, keys, keys_.to);
}

const KvTensors& FlashAttention::with_mirrors(const SiteInputs& in) {
    const KvTensors& stored = in.stored;
    const auto [place, is_new] = mirrored_.emplace(in.site.spec.layer, stored);
    KvTensors& result = place->second;
    if (is_new) {
        result.k = in.layer.key_rope ? turned(in) : copied(in, stored.k);
        result.v = in.site.is_v_in_k ? values_in_keys(in.ctx, result.k, stored.v->ne[0]) : copied(in, stored.v);
    }
    return result;
}

ggml_tensor* FlashAttention::build(const SiteInputs& in) {
    ggml_context* ctx = in.ctx;
    const AttentionSpec& spec = in.site.spec;
    const KvTensors& kv = with_mirrors(in);
    ggml_tensor* q = hadamard(ctx, in.query.in_view(), in.stored.hadamard_k);  // [d_k, T, H]
    ggml_tensor* all = nullptr;
    int64_t first_row = 0;
    for (size_t i = 0; i < runs_.size(); i++) {
        const FlashRun& run = runs_[i];
        const int64_t n = group_rows_[i];
        ggml_tensor* mask = masks_[i].of(ctx, in.layer.window, spec.max_bias > 0.0f, run.n_cells, n);
        ggml_tensor* result = flash_attention(ctx, spec, rows_of_queries(ctx, q, first_row, n),
                                              cells_of(ctx, kv.k, run.begin, run.n_cells),
                                              cells_of(ctx, kv.v, run.begin, run.n_cells), mask, in.sinks);
        all = joined(ctx, all, result);
        first_row += n;
    }
    return all;  // [d_v, H, T]
}

void FlashAttention::set_inputs(const Pass& pass, int n_pos_per_token) {
    std::vector<int64_t> first_key;
    for (size_t group = 0; group < runs_.size(); group++) {
        for (int32_t i = 0; i < pass.groups[group].n_pairs; i++) {
            first_key.push_back(pass.flash->key_cell[first_key.size()] - runs_[group].begin);
        }
    }
    for (size_t group = 0; group < runs_.size(); group++) {
        masks_[group].set_inputs(pass, pass.groups[group], first_key);
    }
    set_copies(pass, n_pos_per_token);
}

// Rows that fill up copy a scratch cell.
void FlashAttention::Copies::fill(std::vector<int32_t> from_cells, std::vector<int64_t> to_cells,
                                  const ScratchCells& scratch) const {
    from_cells.resize(static_cast<size_t>(n), static_cast<int32_t>(scratch.begin));
    fill_up(&to_cells, n, scratch);
    from.set(from_cells);
    if (to != nullptr) {
        set_input(to, to_cells);
    }
}

void FlashAttention::set_copies(const Pass& pass, int n_pos_per_token) const {
    std::vector<int32_t> from_keys;
    std::vector<int64_t> to_keys;
    std::vector<int32_t> turns;
    std::vector<int32_t> from_values;
    std::vector<int64_t> to_values;
    for (const Mirror& mirror : pass.flash->mirrors) {
        const PassBlock& block = pass.blocks[static_cast<size_t>(mirror.block)];
        for (int64_t i = mirror.n_keys; i < block.n_cells; i++) {
            from_keys.push_back(static_cast<int32_t>(block.begin + i));
            to_keys.push_back(mirror.to + i);
            turns.push_back(mirror.turn);
        }
        for (int64_t i = mirror.n_values; i < block.n_cells; i++) {
            from_values.push_back(static_cast<int32_t>(block.begin + i));
            to_values.push_back(mirror.to + i);
        }
    }
    keys_.fill(std::move(from_keys), std::move(to_keys), scratch_);
    values_.fill(std::move(from_values), std::move(to_values), scratch_);
    if (turns_ != nullptr) {
        turns.resize(static_cast<size_t>(keys_.n), 0);
        set_positions(turns_, turns, n_pos_per_token);
    }
}

}  // namespace hw
