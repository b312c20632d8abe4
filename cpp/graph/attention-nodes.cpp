#include "graph/attention-nodes.h"

#include <cstring>

#include "graph/nodes.h"
#include "model/ggml-context.h"

namespace hw {

namespace {

// The product of keys and queries, and what is done to it before the softmax.
struct Scores {
    const ggml_tensor* product;  // MUL_MAT of keys [d_k, n, Hkv] and queries [d_k, T, H]
    float scale;
    float soft_cap;  // 0: none
};

bool is_tanh(const ggml_tensor* node) {
    return node->op == GGML_OP_UNARY && ggml_get_unary_op(node) == GGML_UNARY_OP_TANH;
}

// Goes back from the softmax. FLASH_ATTN_EXT computes cap * tanh(product * scale / cap): the cap is what multiplies the
// tanh, and the scale is all factors together.
Scores read_scores(const ggml_tensor* soft_max) {
    Scores scores = {soft_max->src[0], float_param(soft_max, 0), 0.0f};
    while (scores.product->op != GGML_OP_MUL_MAT) {
        const ggml_tensor* node = scores.product;
        if (node->op == GGML_OP_SCALE && float_param(node, 1) == 0.0f) {
            scores.scale *= float_param(node, 0);
        } else if (is_tanh(node) && scores.soft_cap == 0.0f && scores.scale > 0.0f) {
            scores.soft_cap = scores.scale;
        } else {
            unsupported(node, "changes the scores of attention in an unknown way");
        }
        scores.product = node->src[0];
    }
    return scores;
}

// The values that the weights are multiplied with, [n, d_v, Hkv]; llama.cpp transposes a cache that is not transposed.
ggml_tensor* values_of(const ggml_tensor* node) {
    ggml_tensor* values = node->src[0];
    return values->op == GGML_OP_CONT ? values->src[0] : values;
}

bool is_weighted_sum(const ggml_tensor* node) {
    return node->op == GGML_OP_MUL_MAT && node->src[1]->op == GGML_OP_SOFT_MAX && is_kv_leaf(root_of(values_of(node)));
}

// Not by ggml_flash_attn_ext: that wants a mask of f16, and here it is one of f32. It is never run.
const ggml_tensor* as_flash(ggml_context* ctx, const ggml_tensor* sum) {
    const ggml_tensor* soft_max = sum->src[1];
    const Scores scores = read_scores(soft_max);
    ggml_tensor* q = scores.product->src[1];
    ggml_tensor* v = ggml_transpose(ctx, values_of(sum));
    ggml_tensor* node = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, v->ne[0], q->ne[2], q->ne[1], q->ne[3]);
    const float params[] = {scores.scale, float_param(soft_max, 1), scores.soft_cap};
    std::memcpy(node->op_params, params, sizeof(params));
    ggml_set_name(node, sum->name);
    node->op = GGML_OP_FLASH_ATTN_EXT;
    node->src[0] = q;
    node->src[1] = scores.product->src[0];
    node->src[2] = v;
    node->src[3] = soft_max->src[1];  // mask
    node->src[4] = soft_max->src[2];  // sinks
    return node;
}

}  // namespace

AttentionNodes find_attention(ggml_cgraph* graph) {
    AttentionNodes found;
    size_t n_sums = 0;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        n_sums += is_weighted_sum(ggml_graph_node(graph, i)) ? 1 : 0;
    }
    found.ctx = new_context(2 * n_sums);
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const ggml_tensor* node = ggml_graph_node(graph, i);
        if (node->op == GGML_OP_FLASH_ATTN_EXT) {
            found.flash[node] = node;
        } else if (is_weighted_sum(node)) {
            found.flash[node] = as_flash(found.ctx.get(), node);
        }
    }
    return found;
}

}  // namespace hw
