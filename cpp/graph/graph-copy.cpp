#include "graph/graph-copy.h"

#include <cstring>

#include "base/error.h"
#include "graph/graph-inputs.h"
#include "graph/nodes.h"

namespace hw {

GraphCopy::GraphCopy(const SourceGraph& source, ggml_context* ctx, int32_t n_tokens, int32_t n_outputs,
                     int n_pos_per_token, size_t n_spaces)
    : source_(source), ctx_(ctx) {
    const int64_t n_positions = static_cast<int64_t>(n_tokens) * n_pos_per_token;
    inputs_.tokens = new_input(ctx, GGML_TYPE_I32, n_tokens, "tokens");
    inputs_.positions = new_input(ctx, GGML_TYPE_I32, n_positions, "positions");
    inputs_.view_positions = new_input(ctx, GGML_TYPE_I32, n_positions, "view_positions");
    for (size_t space = 0; space < n_spaces; space++) {
        inputs_.cells.push_back(new_input(ctx, GGML_TYPE_I64, n_tokens, space == 0 ? "cells" : "window_cells"));
    }
    inputs_.out_ids = new_input(ctx, GGML_TYPE_I32, n_outputs, "out_ids");
    inputs_.query_scales = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, 1, 1, n_tokens);
    ggml_set_name(inputs_.query_scales, "query_scales");
    ggml_set_input(inputs_.query_scales);
}

ggml_tensor* GraphCopy::of(const ggml_tensor* tensor) {
    const auto known = copies_.find(tensor);
    if (known != copies_.end()) {
        return known->second;
    }
    if (source_.key_gains.count(tensor) != 0) {
        return copies_[tensor] = of(tensor->src[0]);
    }
    // What is looked up by position (learned positions, see check_inputs) is looked up by that in the view.
    const bool is_lookup = tensor->op == GGML_OP_GET_ROWS;
    const auto source_of = [&](const ggml_tensor* source) {
        return is_lookup && has_name(source, "inp_pos") ? inputs_.view_positions : of(source);
    };
    const bool is_leaf = tensor->op == GGML_OP_NONE && tensor->view_src == nullptr;
    return copies_[tensor] = is_leaf ? leaf(tensor) : clone(tensor, source_of);
}

ggml_tensor* GraphCopy::leaf(const ggml_tensor* leaf) const {
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
    const bool is_state = std::strncmp(leaf->name, "cache_", 6) == 0 || source_.states.count(leaf) != 0;
    if (is_state || !is_weight(leaf)) {
        fail(HW_ERROR_UNSUPPORTED, "the graph of this model cannot be re-wired: it reads '%s' (%s), which is not known",
             leaf->name, is_state ? "a cache" : "an input");
    }
    return const_cast<ggml_tensor*>(leaf);  // a weight: used in place, never written
}

ggml_tensor* GraphCopy::clone(const ggml_tensor* tensor,
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

ggml_tensor* GraphCopy::at(const ggml_tensor* tensor, ggml_tensor* positions) {
    Map done;
    return rotated(tensor, positions, &done);
}

ggml_tensor* GraphCopy::rotated(const ggml_tensor* tensor, ggml_tensor* positions, Map* done) {
    if (has_name(tensor, "inp_pos")) {
        return positions;
    }
    if (source_.rope_results.count(tensor) == 0) {
        return of(tensor);
    }
    const auto known = done->find(tensor);
    if (known != done->end()) {
        return known->second;
    }
    ggml_tensor* result = clone(tensor, [&](const ggml_tensor* source) { return rotated(source, positions, done); });
    (*done)[tensor] = result;
    return result;
}

}  // namespace hw
