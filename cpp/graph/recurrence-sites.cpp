#include "graph/recurrence-sites.h"

#include <algorithm>

#include "graph/nodes.h"

namespace hw {

namespace {

// Whether a tensor is the state of a layer, fetched from where llama.cpp keeps them.
bool is_state(const ggml_tensor* tensor, const StateLeaves& states) {
    while (is_view(tensor) || tensor->op == GGML_OP_CONT || tensor->op == GGML_OP_GET_ROWS) {
        tensor = tensor->src[0];
    }
    return states.count(tensor) != 0;
}

// Numbers of a token that our kernel reads: F32, side by side up to this dimension.
void check_rows(const ggml_tensor* node, const ggml_tensor* source, int n_dims) {
    bool fits = source->type == GGML_TYPE_F32 && source->ne[3] == 1;
    size_t stride = sizeof(float);
    for (int i = 0; i < n_dims; i++) {
        fits = fits && (source->nb[i] == stride || source->ne[i] == 1);
        stride *= static_cast<size_t>(source->ne[i]);
    }
    if (!fits) {
        unsupported(node, "reads numbers that lie in an unknown way");
    }
}

RecurrenceSite read_convolution(const ggml_tensor* node, const StateLeaves& states) {
    const ggml_tensor* inputs = node->src[0];  // [d_k + T, channels]
    const ggml_tensor* weights = node->src[1];
    const int64_t d_k = weights->ne[0] - 1;
    if (inputs->op != GGML_OP_CONCAT || inputs->op_params[0] != 0 || !is_state(inputs->src[0], states) ||
        inputs->src[0]->ne[0] != d_k || inputs->ne[2] != 1 || d_k > max_convolution) {
        unsupported(node, "is a convolution over something else than a few inputs before its own");
    }
    if (inputs->src[1]->type != GGML_TYPE_F32 || inputs->src[1]->nb[1] != sizeof(float)) {
        unsupported(node, "reads numbers that lie in an unknown way");
    }
    check_rows(node, weights, 2);
    return {0, {RecurrenceKind::convolution, weights->ne[1], d_k, 1, 0}, {inputs->src[1], weights}};
}

RecurrenceSite read_scan(const ggml_tensor* node, const StateLeaves& states) {
    const ggml_tensor* x = node->src[1];
    const ggml_tensor* a = node->src[3];
    const ggml_tensor* b = node->src[4];
    if (!is_state(node->src[0], states) || node->op_params[0] != 1 || x->ne[1] % b->ne[1] != 0 ||
        (a->ne[0] != 1 && a->ne[0] != b->ne[0])) {
        unsupported(node, "scans in an unknown way");
    }
    check_rows(node, x, 2);
    check_rows(node, node->src[2], 1);
    check_rows(node, a, 2);
    check_rows(node, b, 2);
    check_rows(node, node->src[5], 2);
    return {
        0, {RecurrenceKind::diagonal, x->ne[1], b->ne[0], x->ne[0], a->ne[0]}, {x, node->src[2], a, b, node->src[5]}};
}

RecurrenceSite read_delta(const ggml_tensor* node, const StateLeaves& states) {
    const ggml_tensor* v = node->src[2];
    const ggml_tensor* g = node->src[3];
    const int64_t d_k = node->src[0]->ne[0];
    if (!is_state(node->src[5], states) || node->op_params[0] != 1 || node->src[1]->ne[0] != d_k ||
        (g->ne[0] != 1 && g->ne[0] != d_k)) {
        unsupported(node, "is a delta net of an unknown kind");
    }
    for (int i = 0; i < 5; i++) {
        check_rows(node, node->src[i], 1);
    }
    return {0, {RecurrenceKind::delta, v->ne[1], d_k, v->ne[0], 0}, {node->src[0], node->src[1], v, g, node->src[4]}};
}

}  // namespace

StateLeaves find_states(ggml_cgraph* graph) {
    StateLeaves states;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const ggml_tensor* node = ggml_graph_node(graph, i);
        const ggml_tensor* root = root_of(node);
        if (is_in_place(node) && is_weight(root) && !is_kv_leaf(root)) {
            states.insert(root);
        }
    }
    return states;
}

RecurrenceSites find_recurrences(ggml_cgraph* graph, const StateLeaves& states) {
    RecurrenceSites found;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const ggml_tensor* node = ggml_graph_node(graph, i);
        RecurrenceSite site;
        switch (node->op) {
            case GGML_OP_SSM_CONV:
                site = read_convolution(node, states);
                break;
            case GGML_OP_SSM_SCAN:
                site = read_scan(node, states);
                break;
            case GGML_OP_GATED_DELTA_NET:
                site = read_delta(node, states);
                break;
            default:
                continue;
        }
        site.index = found.size();
        found.emplace(node, std::move(site));
    }
    return found;
}

}  // namespace hw
