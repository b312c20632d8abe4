#include "graph/kept-graph.h"

#include <unordered_map>

#include "ggml-backend.h"
#include "model/ggml-context.h"

namespace hw {

namespace {

using Copies = std::unordered_map<const ggml_tensor*, ggml_tensor*>;

// What has memory of its own, which no scheduler gave it.
bool lasts(const ggml_tensor* tensor) {
    return tensor->op == GGML_OP_NONE && tensor->view_src == nullptr && tensor->buffer != nullptr &&
           (tensor->flags & GGML_TENSOR_FLAG_INPUT) == 0 &&
           ggml_backend_buffer_get_usage(tensor->buffer) != GGML_BACKEND_BUFFER_USAGE_COMPUTE;
}

// All that the tensor is computed from, and itself.
void collect(const ggml_tensor* tensor, Copies* found) {
    if (tensor == nullptr || lasts(tensor) || !found->emplace(tensor, nullptr).second) {
        return;
    }
    for (const ggml_tensor* source : tensor->src) {
        collect(source, found);
    }
    collect(tensor->view_src, found);
}

}  // namespace

KeptGraph keep_graph(ggml_cgraph* graph) {
    const int n_nodes = ggml_graph_n_nodes(graph);
    Copies copies;
    for (int i = 0; i < n_nodes; i++) {
        collect(ggml_graph_node(graph, i), &copies);
    }
    KeptGraph kept;
    kept.ctx = new_context(copies.size(), static_cast<size_t>(ggml_graph_size(graph)));
    for (auto& [tensor, copy] : copies) {
        copy = ggml_new_tensor(kept.ctx.get(), tensor->type, GGML_MAX_DIMS, tensor->ne);
        *copy = *tensor;
    }
    const auto redirect = [&](ggml_tensor** source) {
        const auto copy = copies.find(*source);
        *source = copy != copies.end() ? copy->second : *source;
    };
    for (auto& entry : copies) {
        for (ggml_tensor*& source : entry.second->src) {
            redirect(&source);
        }
        redirect(&entry.second->view_src);
    }
    kept.graph = ggml_new_graph_custom(kept.ctx.get(), static_cast<size_t>(ggml_graph_size(graph)), false);
    for (int i = 0; i < n_nodes; i++) {
        ggml_graph_add_node(kept.graph, copies.at(ggml_graph_node(graph, i)));
    }
    return kept;
}

}  // namespace hw
