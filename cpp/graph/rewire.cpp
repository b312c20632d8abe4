#include "graph/rewire.h"

#include "base/error.h"
#include "cache/hadamard.h"
#include "graph/nodes.h"

namespace hw {

Rewire::Rewire(const SourceGraph& source, const ModelSpec& spec, const KvStore& store, ggml_context* ctx,
               int32_t n_tokens, int32_t n_outputs)
    : source_(source),
      spec_(spec),
      store_(store),
      copy_(source, ctx, n_tokens, n_outputs, spec.n_pos_per_token, spec.windows().size()),
      stored_(store.layers()) {}

// Nodes are taken in the order of the source: what a node reads was stored by the nodes before it.
ggml_tensor* Rewire::run(ggml_cgraph* graph, const Builders& build) {
    for (int i = 0; i < ggml_graph_n_nodes(source_.graph); i++) {
        const ggml_tensor* node = ggml_graph_node(source_.graph, i);
        const auto key = source_.key_stores.find(node);
        const auto value = source_.value_stores.find(node);
        const auto site = source_.sites.find(node);
        const auto recurrence = source_.recurrences.find(node);
        if (key != source_.key_stores.end()) {
            store_keys(graph, node, key->second);
        } else if (value != source_.value_stores.end()) {
            store_values(graph, node, value->second);
        } else if (site != source_.sites.end()) {
            attend(graph, node, site->second, build.attention);
        } else if (recurrence != source_.recurrences.end()) {
            recur(graph, node, recurrence->second, build.recurrence);
        } else if (node->op == GGML_OP_MUL_MAT && is_weight(node->src[0])) {
            multiply(node, build.product);
        }
    }
    ggml_tensor* logits = copy_.of(source_.logits);
    if (!source_.reads_out_ids) {
        logits = ggml_get_rows(copy_.ctx(), logits, inputs().out_ids);
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
        if (is_in_place(node) && !is_ours && !copy_.has(node) && copy_.has(root_of(node))) {
            unsupported(node, "writes over a tensor in a way that is not followed");
        }
    }
}

void Rewire::store_keys(ggml_cgraph* graph, const ggml_tensor* node, const KvRows& rows) {
    const KvTensors& layer = store_.layer(rows.layer);
    KvTensors& stored = stored_[rows.layer];
    stored.k = store_rows(node, rows, layer.k, layer.hadamard_k, layer.limit_k);
    ggml_build_forward_expand(graph, stored.k);
    note_store(rows.layer, stored.k);
}

void Rewire::store_values(ggml_cgraph* graph, const ggml_tensor* node, const KvRows& rows) {
    const KvTensors& layer = store_.layer(rows.layer);
    KvTensors& stored = stored_[rows.layer];
    stored.v = store_rows(node, rows, layer.v, layer.hadamard_v, layer.limit_v);
    ggml_build_forward_expand(graph, stored.v);
    note_store(rows.layer, stored.v);
}

void Rewire::note_store(int layer, const ggml_tensor* node) {
    stores_.push_back({layer, node, attended_.count(layer) != 0});
}

// llama.cpp stores rows [d * Hkv, T]; ours are [d, T, Hkv], one row a head, all with the same cell numbers.
ggml_tensor* Rewire::store_rows(const ggml_tensor* node, const KvRows& source, ggml_tensor* cells, ggml_tensor* matrix,
                                float limit) {
    ggml_context* ctx = copy_.ctx();
    ggml_tensor* rows = copy_.of(source.rows);
    const int64_t d = cells->ne[0];
    ggml_tensor* numbers = inputs().cells.at(store_.layer(source.layer).space);
    const int64_t n_tokens = numbers->ne[0];
    if (rows->ne[0] != d * cells->ne[2] || rows->ne[1] != n_tokens) {
        fail(HW_ERROR_UNSUPPORTED, "the graph of this model cannot be re-wired: '%s' stores rows of %d, expected %d",
             node->name, static_cast<int>(rows->ne[0]), static_cast<int>(d * cells->ne[2]));
    }
    rows = within_limit(ctx, hadamard(ctx, rows, matrix), limit);
    ggml_tensor* by_head = ggml_view_3d(ctx, rows, d, n_tokens, cells->ne[2], rows->nb[1],
                                        static_cast<size_t>(d) * ggml_element_size(rows), 0);
    return ggml_set_rows(ctx, cells, by_head, numbers);
}

void Rewire::attend(ggml_cgraph* graph, const ggml_tensor* node, const AttentionSite& site,
                    const BuildAttention& build) {
    ggml_context* ctx = copy_.ctx();
    const LayerSpec& layer = spec_.layers.at(site.spec.layer);
    const KvTensors stored = stored_at(site);
    attended_.insert(site.spec.layer);
    ggml_tensor* sinks = site.node->src[4] != nullptr ? copy_.of(site.node->src[4]) : nullptr;
    Query query(copy_, site, layer);
    ggml_tensor* result = build({ctx, spec_.n_pos_per_token, site, layer, query, stored, sinks});
    result = hadamard(ctx, result, stored.hadamard_v);
    if (site.node != node) {  // a product of weights and values is [d_v, T, H]
        result = ggml_cont(ctx, ggml_permute(ctx, result, 0, 2, 1, 3));
    }
    copy_.put(node, result);
    ggml_set_name(result, node->name);
    ggml_build_forward_expand(graph, result);
}

void Rewire::recur(ggml_cgraph* graph, const ggml_tensor* node, const RecurrenceSite& site,
                   const BuildRecurrence& build) {
    const std::vector<Recurrence>& known = spec_.recurrences;
    if (site.index >= known.size() || !(known[site.index].shape == site.shape)) {
        unsupported(node, "has another state than in a graph of another size");
    }
    std::vector<ggml_tensor*> sources;
    for (const ggml_tensor* source : site.sources) {
        sources.push_back(copy_.of(source));
    }
    ggml_tensor* result = build(copy_.ctx(), site, sources);
    copy_.put(node, result);
    ggml_set_name(result, node->name);
    ggml_build_forward_expand(graph, result);
}

void Rewire::multiply(const ggml_tensor* node, const BuildProduct& build) {
    ggml_tensor* result = build(copy_.ctx(), node, copy_.of(node->src[1]));
    if (result != nullptr) {
        copy_.put(node, result);
        ggml_set_name(result, node->name);
    }
}

KvTensors Rewire::stored_at(const AttentionSite& site) {
    KvTensors stored = stored_.at(site.spec.layer);
    if (site.is_v_in_k) {
        stored.v = values_in_keys(copy_.ctx(), stored.k, site.node->src[2]->ne[0]);
    }
    return stored;
}

}  // namespace hw
