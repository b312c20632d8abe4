// Stands before llama.cpp's llama_graph_reserve in a process that preloads it, and changes the graph as an update of
// llama.cpp might. EDIT_GRAPH names the change.
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "ggml.h"

struct llama_context;

namespace {

// Of new tensors; never freed, as nobody knows how long a graph is looked at.
ggml_context* new_tensors() { return ggml_init({8 * ggml_tensor_overhead(), nullptr, true}); }

template <typename Fits>
ggml_tensor* first_that(ggml_cgraph* graph, const Fits& fits) {
    ggml_tensor** nodes = ggml_graph_nodes(graph);
    ggml_tensor** end = nodes + ggml_graph_n_nodes(graph);
    ggml_tensor** found = std::find_if(nodes, end, fits);
    return found != end ? *found : nullptr;
}

ggml_tensor* first(ggml_cgraph* graph, ggml_op op) {
    return first_that(graph, [&](const ggml_tensor* node) { return node->op == op; });
}

void insert(ggml_cgraph* graph, ggml_tensor* node, const ggml_tensor* before) {
    ggml_graph_add_node(graph, node);
    ggml_tensor** nodes = ggml_graph_nodes(graph);
    ggml_tensor** end = nodes + ggml_graph_n_nodes(graph);
    std::rotate(std::find(nodes, end, before), end - 1, end);
}

// The ROPE before the view turns other heads too, of which the view takes the second half: the same numbers as before.
void select_heads(ggml_cgraph* graph, ggml_tensor* view) {
    ggml_tensor* rope = view->src[0];
    if (view->op != GGML_OP_VIEW || rope->op != GGML_OP_ROPE) {
        std::abort();
    }
    ggml_tensor* data = rope->src[0];  // [d, H, T]
    ggml_context* ctx = new_tensors();
    ggml_tensor* others = ggml_scale(ctx, data, 2.0f);
    ggml_tensor* twice = ggml_concat(ctx, others, data, 1);
    insert(graph, others, rope);
    insert(graph, twice, rope);
    rope->src[0] = twice;
    view->view_offs = rope->nb[2];
    std::memcpy(view->op_params, &view->view_offs, sizeof(view->view_offs));
    for (size_t* stride : {&rope->nb[2], &rope->nb[3]}) {
        *stride *= 2;
    }
    rope->ne[1] *= 2;
    const int by_token = view->ne[0] == data->ne[0] ? 2 : 1;  // [d, H, T], or [d * H, T]
    for (int i = by_token; i < GGML_MAX_DIMS; i++) {
        view->nb[i] *= 2;
    }
}

// Every second site, from the first on, reads a copy of its mask.
void read_second_mask(ggml_cgraph* graph) {
    ggml_tensor* copy = nullptr;
    bool is_second = false;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        ggml_tensor* node = ggml_graph_node(graph, i);
        if (node->op == GGML_OP_FLASH_ATTN_EXT) {
            copy = copy == nullptr ? ggml_dup_tensor(new_tensors(), node->src[3]) : copy;
            node->src[3] = is_second ? copy : node->src[3];
            is_second = !is_second;
        }
    }
}

void read_one_mask(ggml_cgraph* graph) {
    ggml_tensor* mask = first(graph, GGML_OP_FLASH_ATTN_EXT)->src[3];
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        ggml_tensor* node = ggml_graph_node(graph, i);
        node->src[3] = node->op == GGML_OP_FLASH_ATTN_EXT ? mask : node->src[3];
    }
}

// RWKV's token shift leaves out the first token's inputs, not the last one's.
void shift_others(ggml_cgraph* graph) {
    ggml_tensor* late = first_that(graph, [](const ggml_tensor* node) {
                            return node->op == GGML_OP_CONCAT && node->op_params[0] == 1;
                        })->src[1];
    late->view_offs += late->nb[1];
}

// What a lightning attention's tokens see of each other decays faster than what they see of the state.
void decay_faster(ggml_cgraph* graph) {
    ggml_tensor* scale = first_that(graph, [](const ggml_tensor* node) {
        return node->op == GGML_OP_SCALE && std::strcmp(node->src[0]->name, "diag_decay_exp") == 0;
    });
    const float factor = 2.0f;
    std::memcpy(scale->op_params, &factor, sizeof(factor));
}

void edit(ggml_cgraph* graph, const std::string& name) {
    ggml_tensor* site = first(graph, GGML_OP_FLASH_ATTN_EXT);
    if (name == "parameter") {
        site->op_params[5] = 1;
    } else if (name == "input") {
        site->src[5] = site->src[3];
    } else if (name == "in place") {
        ggml_tensor* logits = ggml_graph_get_tensor(graph, "result_output");
        insert(graph, ggml_scale_inplace(new_tensors(), logits->src[1], 2.0f), logits);
    } else if (name == "second mask") {
        read_second_mask(graph);
    } else if (name == "one mask") {
        read_one_mask(graph);
    } else if (name == "heads of keys") {
        select_heads(graph, first(graph, GGML_OP_SET_ROWS)->src[0]);
    } else if (name == "heads of queries") {
        ggml_tensor* permuted = site->src[0];  // [d, T, H], of a view [d, H, T]
        select_heads(graph, permuted->src[0]);
        permuted->view_offs = permuted->src[0]->view_offs;
        permuted->nb[1] = permuted->src[0]->nb[2];
        permuted->nb[3] = permuted->src[0]->nb[3];
    } else if (name == "shift") {
        shift_others(graph);
    } else if (name == "decay") {
        decay_faster(graph);
    } else if (name != "nothing") {
        std::abort();
    }
}

}  // namespace

ggml_cgraph* llama_graph_reserve(llama_context* ctx, uint32_t n_tokens, uint32_t n_seqs, uint32_t n_outputs) {
    using Reserve = decltype(&llama_graph_reserve);
    static const auto reserve =
        reinterpret_cast<Reserve>(dlsym(RTLD_NEXT, "_Z19llama_graph_reserveP13llama_contextjjj"));
    ggml_cgraph* graph = reserve(ctx, n_tokens, n_seqs, n_outputs);
    if (graph != nullptr) {
        edit(graph, std::getenv("EDIT_GRAPH"));
    }
    return graph;
}
