#include "graph/recurrence-sites.h"

#include <algorithm>

#include "graph/nodes.h"

namespace hw {

namespace {

// Where llama.cpp keeps the state of a layer that a tensor is fetched from; NULL: it is none.
const ggml_tensor* state_of(const ggml_tensor* tensor, const StateLeaves& states) {
    while (is_view(tensor) || tensor->op == GGML_OP_CONT || tensor->op == GGML_OP_GET_ROWS) {
        tensor = tensor->src[0];
    }
    return states.count(tensor) != 0 ? tensor : nullptr;
}

bool is_state(const ggml_tensor* tensor, const StateLeaves& states) { return state_of(tensor, states) != nullptr; }

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
    return {0,
            {RecurrenceKind::delta, v->ne[1], d_k, v->ne[0], g->ne[0]},
            {node->src[0], node->src[1], v, g, node->src[4]}};
}

// RWKV's token shift: the inputs of the tokens, each one late, the first one that of the token before the pass.
bool is_shift(const ggml_tensor* node, const StateLeaves& states) {
    return node->op == GGML_OP_CONCAT && node->op_params[0] == 1 && node->src[0]->ne[1] == 1 &&
           is_state(node->src[0], states);
}

RecurrenceSite read_shift(const ggml_tensor* node) {
    const ggml_tensor* late = node->src[1];  // [channels, T - 1]
    const ggml_tensor* inputs = late->src[0];
    if (late->op != GGML_OP_VIEW || late->view_offs != inputs->view_offs || inputs->ne[0] != node->ne[0] ||
        inputs->ne[1] != node->ne[1] || node->ne[2] != 1 || late->nb[1] != inputs->nb[1]) {
        unsupported(node, "puts a state before something else than the inputs of the tokens behind it");
    }
    check_rows(node, inputs, 1);
    return {0, {RecurrenceKind::convolution, inputs->ne[0], 1, 1, 0}, {inputs}};
}

// sources: rows of numbers for each head and token.
void check_heads(const ggml_tensor* node, const std::vector<const ggml_tensor*>& sources) {
    const ggml_tensor* first = sources[0];
    for (const ggml_tensor* source : sources) {
        check_rows(node, source, 1);
        if (source->ne[0] != first->ne[0] || source->ne[1] != first->ne[1] || source->ne[2] != first->ne[2]) {
            unsupported(node, "reads numbers of other heads, or of other sizes, than are known");
        }
    }
}

RecurrenceSite read_gated(const ggml_tensor* node, const StateLeaves& states) {
    const ggml_tensor* const* src = node->src;  // k, v, q, g
    if (!is_state(src[4], states)) {
        unsupported(node, "is a linear attention of an unknown kind");
    }
    check_heads(node, {src[2], src[0], src[1], src[3]});
    const int64_t d = src[0]->ne[0];
    return {
        0, {RecurrenceKind::linear, src[0]->ne[1], d, d, d, float_param(node, 0)}, {src[2], src[0], src[1], src[3]}};
}

RecurrenceSite read_wkv6(const ggml_tensor* node, const StateLeaves& states) {
    const ggml_tensor* const* src = node->src;  // k, v, r, u, w
    const int64_t d = src[0]->ne[0];
    if (!is_state(src[5], states) || src[3]->ne[0] != d || src[3]->ne[1] != src[0]->ne[1]) {
        unsupported(node, "is a WKV-6 of an unknown kind");
    }
    check_heads(node, {src[2], src[0], src[1], src[4]});
    check_rows(node, src[3], 2);
    return {0, {RecurrenceKind::linear, src[0]->ne[1], d, d, d}, {src[2], src[0], src[1], src[4], src[3]}};
}

RecurrenceSite read_wkv7(const ggml_tensor* node, const StateLeaves& states) {
    const std::vector<const ggml_tensor*> sources(node->src, node->src + 6);  // r, w, k, v, a, b
    if (!is_state(node->src[6], states)) {
        unsupported(node, "is a WKV-7 of an unknown kind");
    }
    check_heads(node, sources);
    const int64_t d = sources[0]->ne[0];
    return {0, {RecurrenceKind::wkv7, sources[0]->ne[1], d, d, d}, sources};
}

// A chain of single sources, by operation.
const ggml_tensor* behind(const ggml_tensor* node, std::initializer_list<ggml_op> ops) {
    for (const ggml_op op : ops) {
        if (node == nullptr || node->op != op) {
            return nullptr;
        }
        node = node->src[0];
    }
    return node;
}

bool computes(const ggml_tensor* node, ggml_op op) { return node != nullptr && node->op == op; }

bool is_exp(const ggml_tensor* node) {
    return node->op == GGML_OP_UNARY && ggml_get_unary_op(node) == GGML_UNARY_OP_EXP;
}

// MiniMax's lightning attention, CONT(PERMUTE(state q + values (k q))), where its decays are inputs that llama.cpp
// fills in: of ALiBi's slopes, scaled for each layer.
//
//   state MUL_MAT PERMUTE(MUL(q, EXP(SCALE(q_decay_exp))))
//   CONT(PERMUTE(v)) MUL_MAT MUL(PERMUTE(k) MUL_MAT PERMUTE(q), EXP(SCALE(diag_decay_exp)))
bool is_lightning(const ggml_tensor* node, const StateLeaves& states) {
    const ggml_tensor* sum = behind(node, {GGML_OP_CONT, GGML_OP_PERMUTE});
    return sum != nullptr && sum->op == GGML_OP_ADD && computes(sum->src[0], GGML_OP_MUL_MAT) &&
           is_state(sum->src[0]->src[0], states);
}

// How much ALiBi's slopes are scaled in a factor of a product. 0: it is none of those decays.
float slope_of(const ggml_tensor* product, const char* input) {
    const ggml_tensor* factor = computes(product, GGML_OP_MUL) ? product->src[1] : nullptr;
    if (factor == nullptr || !is_exp(factor) || factor->src[0]->op != GGML_OP_SCALE ||
        !has_name(factor->src[0]->src[0], input) || float_param(factor->src[0], 1) != 0.0f) {
        return 0.0f;
    }
    return float_param(factor->src[0], 0);
}

RecurrenceSite read_lightning(const ggml_tensor* node) {
    const ggml_tensor* sum = node->src[0]->src[0];
    const ggml_tensor* decayed = behind(sum->src[0]->src[1], {GGML_OP_PERMUTE});
    const ggml_tensor* v = nullptr;
    const ggml_tensor* k = nullptr;
    const ggml_tensor* scores = nullptr;
    if (computes(sum->src[1], GGML_OP_MUL_MAT)) {
        v = behind(sum->src[1]->src[0], {GGML_OP_CONT, GGML_OP_PERMUTE});
        scores = sum->src[1]->src[1];
        k = behind(scores, {GGML_OP_MUL, GGML_OP_MUL_MAT, GGML_OP_PERMUTE});
    }
    const float slope = slope_of(decayed, "q_decay_exp");
    if (k == nullptr || v == nullptr || slope == 0.0f || slope_of(scores, "diag_decay_exp") != slope ||
        behind(scores->src[0]->src[1], {GGML_OP_PERMUTE}) != decayed->src[0]) {
        unsupported(node, "reads a state of a recurrent layer in an unknown way");
    }
    const ggml_tensor* q = decayed->src[0];
    check_heads(node, {q, k, v});
    return {0, {RecurrenceKind::linear, q->ne[1], q->ne[0], v->ne[0], 1, 1.0f, slope}, {q, k, v}};
}

// Itself, or behind a CONCAT.
const ggml_tensor* state_read_by(const ggml_tensor* node, const StateLeaves& states) {
    for (const ggml_tensor* source : node->src) {
        if (source == nullptr) {
            continue;
        }
        const ggml_tensor* state = state_of(source->op == GGML_OP_CONCAT ? source->src[0] : source, states);
        if (state != nullptr) {
            return state;
        }
    }
    return nullptr;
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
            case GGML_OP_GATED_LINEAR_ATTN:
                site = read_gated(node, states);
                break;
            case GGML_OP_RWKV_WKV6:
                site = read_wkv6(node, states);
                break;
            case GGML_OP_RWKV_WKV7:
                site = read_wkv7(node, states);
                break;
            default:
                if (is_shift(node, states)) {
                    site = read_shift(node);
                } else if (is_lightning(node, states)) {
                    site = read_lightning(node);
                } else {
                    continue;
                }
        }
        site.index = found.size();
        site.state = state_read_by(node, states);
        found.emplace(node, std::move(site));
    }
    return found;
}

}  // namespace hw
