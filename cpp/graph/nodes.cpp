#include "graph/nodes.h"

#include <cstdlib>
#include <cstring>

#include "base/error.h"

namespace hw {

const ggml_tensor* root_of(const ggml_tensor* tensor) {
    return tensor->view_src != nullptr ? tensor->view_src : tensor;
}

int cache_layer(const ggml_tensor* leaf, const char* prefix) {
    const size_t length = std::strlen(prefix);
    return std::strncmp(leaf->name, prefix, length) == 0 ? std::atoi(leaf->name + length) : -1;
}

bool is_kv_leaf(const ggml_tensor* leaf) {
    return cache_layer(leaf, "cache_k_l") >= 0 || cache_layer(leaf, "cache_v_l") >= 0;
}

bool is_weight(const ggml_tensor* leaf) {
    return leaf->op == GGML_OP_NONE && leaf->buffer != nullptr && (leaf->flags & GGML_TENSOR_FLAG_INPUT) == 0;
}

bool has_name(const ggml_tensor* tensor, const char* name) { return std::strcmp(tensor->name, name) == 0; }

bool is_view(const ggml_tensor* node) {
    return node->op == GGML_OP_VIEW || node->op == GGML_OP_RESHAPE || node->op == GGML_OP_PERMUTE ||
           node->op == GGML_OP_TRANSPOSE;
}

bool is_reshape(const ggml_tensor* node) {
    return (is_view(node) || node->op == GGML_OP_CONT) && ggml_nelements(node) == ggml_nelements(node->src[0]);
}

bool is_in_place(const ggml_tensor* node) {
    return node->op != GGML_OP_NONE && node->view_src != nullptr && !is_view(node);
}

float float_param(const ggml_tensor* node, int index) {
    float value;
    std::memcpy(&value, node->op_params + index, sizeof(value));
    return value;
}

void unsupported(const ggml_tensor* node, const char* why) {
    fail(HW_ERROR_UNSUPPORTED, "the graph of this model cannot be re-wired: node '%s' (%s) %s", node->name,
         ggml_op_desc(node), why);
}

}  // namespace hw
