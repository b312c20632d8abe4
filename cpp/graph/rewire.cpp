#include "graph/rewire.h"

#include <cstring>

#include "base/error.h"
#include "cache/hadamard.h"
#include "graph/graph-inputs.h"
#include "graph/nodes.h"
#include "graph/rope.h"

namespace hw {

Rewire::Rewire(const SourceGraph& source, const ModelSpec& spec, const KvStore& store, ggml_context* ctx,
               int32_t n_tokens, int32_t n_outputs)
    : source_(source), spec_(spec), store_(store), ctx_(ctx) {
    inputs_.tokens = new_input(ctx, GGML_TYPE_I32, n_tokens, "tokens");
    inputs_.positions =
        new_input(ctx, GGML_TYPE_I32, static_cast<int64_t>(n_tokens) * spec.n_pos_per_token, "positions");
    inputs_.view_positions =
        new_input(ctx, GGML_TYPE_I32, static_cast<int64_t>(n_tokens) * spec.n_pos_per_token, "view_positions");
    inputs_.cells = new_input(ctx, GGML_TYPE_I64, n_tokens, "cells");
    inputs_.out_ids = new_input(ctx, GGML_TYPE_I32, n_outputs, "out_ids");
    inputs_.query_scales = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, 1, 1, n_tokens);
    ggml_set_name(inputs_.query_scales, "query_scales");
    ggml_set_input(inputs_.query_scales);
    for (const auto& entry : store.layers()) {
        stored_[entry.first] = entry.second;
    }
}

// Nodes are taken in the order of the source: what a node reads was stored by the nodes before it.
ggml_tensor* Rewire::run(ggml_cgraph* graph, const Chooser& attention_of) {
    for (int i = 0; i < ggml_graph_n_nodes(source_.graph); i++) {
        const ggml_tensor* node = ggml_graph_node(source_.graph, i);
        const auto key = source_.key_stores.find(node);
        const auto value = source_.value_stores.find(node);
        const auto site = source_.sites.find(node);
        if (key != source_.key_stores.end()) {
            const KvTensors& layer = store_.layer(key->second.layer);
            KvTensors& stored = stored_[key->second.layer];
            stored.k = store_rows(node, key->second, layer.k, layer.hadamard_k, layer.limit_k);
            ggml_build_forward_expand(graph, stored.k);
        } else if (value != source_.value_stores.end()) {
            const KvTensors& layer = store_.layer(value->second.layer);
            KvTensors& stored = stored_[value->second.layer];
            stored.v = store_rows(node, value->second, layer.v, layer.hadamard_v, layer.limit_v);
            ggml_build_forward_expand(graph, stored.v);
        } else if (site != source_.sites.end()) {
            const KvTensors stored = stored_at(site->second);
            ggml_tensor* result = attention_of(site->second).build(*this, site->second, stored);
            result = hadamard(ctx_, result, stored.hadamard_v);
            if (site->second.node != node) {  // a product of weights and values is [d_v, T, H]
                result = ggml_cont(ctx_, ggml_permute(ctx_, result, 0, 2, 1, 3));
            }
            copies_[node] = result;
            ggml_set_name(result, node->name);
            ggml_build_forward_expand(graph, result);
        }
    }
    ggml_tensor* logits = copy(source_.logits);
    if (!source_.reads_out_ids) {
        logits = ggml_get_rows(ctx_, logits, inputs_.out_ids);
    }
    check_in_place_nodes();
    ggml_set_output(logits);
    ggml_build_forward_expand(graph, logits);
    return logits;
}

// A node that writes over what we read of it must have been copied with it.
void Rewire::check_in_place_nodes() const {
    for (int i = 0; i < ggml_graph_n_nodes(source_.graph); i++) {
        const ggml_tensor* node = ggml_graph_node(source_.graph, i);
        const bool is_ours = source_.key_stores.count(node) != 0 || source_.value_stores.count(node) != 0;
        if (is_in_place(node) && !is_ours && copies_.count(node) == 0 && copies_.count(root_of(node)) != 0) {
            unsupported(node, "writes over a tensor in a way that is not followed");
        }
    }
}

KvTensors Rewire::stored_at(const AttentionSite& site) {
    KvTensors stored = stored_.at(site.spec.layer);
    if (site.is_v_in_k) {
        stored.v = values_in_keys(ctx_, stored.k, site.node->src[2]->ne[0]);
    }
    return stored;
}

// llama.cpp stores rows [d * Hkv, T]; ours are [d, T, Hkv], one row a head, all with the same cell numbers.
ggml_tensor* Rewire::store_rows(const ggml_tensor* node, const KvRows& source, ggml_tensor* cells, ggml_tensor* matrix,
                                float limit) {
    ggml_tensor* rows = copy(source.rows);
    const int64_t d = cells->ne[0];
    const int64_t n_tokens = inputs_.cells->ne[0];
    if (rows->ne[0] != d * cells->ne[2] || rows->ne[1] != n_tokens) {
        fail(HW_ERROR_UNSUPPORTED, "the graph of this model cannot be re-wired: '%s' stores rows of %d, expected %d",
             node->name, static_cast<int>(rows->ne[0]), static_cast<int>(d * cells->ne[2]));
    }
    rows = within_limit(ctx_, hadamard(ctx_, rows, matrix), limit);
    ggml_tensor* by_head = ggml_view_3d(ctx_, rows, d, n_tokens, cells->ne[2], rows->nb[1],
                                        static_cast<size_t>(d) * ggml_element_size(rows), 0);
    return ggml_set_rows(ctx_, cells, by_head, inputs_.cells);
}

ggml_tensor* Rewire::copy(const ggml_tensor* tensor) {
    const auto known = copies_.find(tensor);
    if (known != copies_.end()) {
        return known->second;
    }
    if (source_.key_gains.count(tensor) != 0) {
        return copies_[tensor] = copy(tensor->src[0]);
    }
    // What is looked up by position (learned positions, see check_inputs) is looked up by that in the view.
    const bool is_lookup = tensor->op == GGML_OP_GET_ROWS;
    const auto source_of = [&](const ggml_tensor* source) {
        return is_lookup && has_name(source, "inp_pos") ? inputs_.view_positions : copy(source);
    };
    const bool is_leaf = tensor->op == GGML_OP_NONE && tensor->view_src == nullptr;
    return copies_[tensor] = is_leaf ? copy_leaf(tensor) : clone(tensor, source_of);
}

ggml_tensor* Rewire::copy_leaf(const ggml_tensor* leaf) const {
    if (has_name(leaf, "inp_tokens")) {
        return inputs_.tokens;
    }
    if (has_name(leaf, "inp_pos")) {
        return inputs_.positions;
    }
    if (has_name(leaf, "out_ids")) {
        return inputs_.out_ids;
    }
    if (has_name(leaf, "inp_attn_scale")) {
        return inputs_.query_scales;
    }
    const bool is_state = std::strncmp(leaf->name, "cache_", 6) == 0;
    if (is_state || !is_weight(leaf)) {
        fail(HW_ERROR_UNSUPPORTED, "the graph of this model cannot be re-wired: it reads '%s' (%s), which is not known",
             leaf->name, is_state ? "a cache" : "an input");
    }
    return const_cast<ggml_tensor*>(leaf);  // a weight: used in place, never written
}

ggml_tensor* Rewire::clone(const ggml_tensor* tensor,
                           const std::function<ggml_tensor*(const ggml_tensor*)>& source_of) {
    ggml_tensor* result = ggml_new_tensor(ctx_, tensor->type, GGML_MAX_DIMS, tensor->ne);
    std::memcpy(result->nb, tensor->nb, sizeof(tensor->nb));
    std::memcpy(result->op_params, tensor->op_params, sizeof(tensor->op_params));
    std::memcpy(result->name, tensor->name, sizeof(tensor->name));
    result->op = tensor->op;
    for (int i = 0; i < GGML_MAX_SRC; i++) {
        result->src[i] = tensor->src[i] != nullptr ? source_of(tensor->src[i]) : nullptr;
    }
    if (tensor->view_src != nullptr) {
        // A view of a copied view must name the root, as ggml itself does.
        ggml_tensor* base = source_of(tensor->view_src);
        result->view_src = base->view_src != nullptr ? base->view_src : base;
        result->view_offs = tensor->view_offs + (base->view_src != nullptr ? base->view_offs : 0);
    }
    return result;
}

ggml_tensor* Rewire::rotated_query(const AttentionSite& site, ggml_tensor* positions) {
    const LayerSpec& layer = layer_of(site);
    if (layer.key_gain == nullptr) {
        Map done;
        return copy_rotated(site.node->src[0], positions, &done);
    }
    ggml_tensor* q = rope_like(ctx_, *layer.key_rope, query_with_gain(site), positions);
    return ggml_permute(ctx_, q, 0, 2, 1, 3);
}

ggml_tensor* Rewire::query_in_view(const AttentionSite& site) {
    if (site.rope == nullptr) {
        return copy(site.node->src[0]);
    }
    if (layer_of(site).key_gain == nullptr) {
        return rotated_query(site, inputs_.view_positions);
    }
    return ggml_permute(ctx_, query_with_gain(site), 0, 2, 1, 3);
}

ggml_tensor* Rewire::query_with_gain(const AttentionSite& site) {
    ggml_tensor*& q = queries_with_gain_[site.node];
    if (q == nullptr) {
        Map done;
        q = copy_rotated(site.node->src[0], inputs_.view_positions, &done);  // [d_k, T, H]
        q = ggml_mul(ctx_, ggml_cont(ctx_, ggml_permute(ctx_, q, 0, 2, 1, 3)), layer_of(site).key_gain);
    }
    return q;
}

ggml_tensor* Rewire::copy_rotated(const ggml_tensor* tensor, ggml_tensor* positions, Map* done) {
    if (has_name(tensor, "inp_pos")) {
        return positions;
    }
    if (source_.rope_results.count(tensor) == 0) {
        return copy(tensor);
    }
    const auto known = done->find(tensor);
    if (known != done->end()) {
        return known->second;
    }
    ggml_tensor* result =
        clone(tensor, [&](const ggml_tensor* source) { return copy_rotated(source, positions, done); });
    (*done)[tensor] = result;
    return result;
}

}  // namespace hw
