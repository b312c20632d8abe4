#include "engine/weight-shares.h"

#include "ggml-backend.h"
#include "products/weight-matrix.h"

namespace hw {

namespace {

bool is_product_with_weights(const ggml_tensor* node) {
    if (node->op != GGML_OP_MUL_MAT && node->op != GGML_OP_MUL_MAT_ID) {
        return false;
    }
    const ggml_tensor* weights = node->src[0];
    return lies_on_cpu(weights) && ggml_backend_buffer_get_usage(weights->buffer) == GGML_BACKEND_BUFFER_USAGE_WEIGHTS;
}

hw_weight_share share_of(const ggml_tensor* node) {
    const ggml_tensor* weights = node->src[0];
    const bool is_routed = node->op == GGML_OP_MUL_MAT_ID;
    // src[2]: the experts of each token [n_used, T]
    const int64_t used = is_routed ? node->src[2]->ne[0] : 1;
    const int64_t of = is_routed ? weights->ne[2] : 1;
    const double part = static_cast<double>(used) / static_cast<double>(of);
    return {weights->type, is_repacked(weights), is_routed, static_cast<double>(ggml_nbytes(weights)) * part,
            static_cast<double>(ggml_nelements(weights)) * part};
}

}  // namespace

std::vector<hw_weight_share> weight_shares(ggml_cgraph* graph) {
    std::vector<hw_weight_share> shares;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const ggml_tensor* node = ggml_graph_node(graph, i);
        if (is_product_with_weights(node)) {
            shares.push_back(share_of(node));
        }
    }
    return shares;
}

}  // namespace hw
