#include "graph/sliding-window.h"

#include "base/error.h"
#include "graph/graph-context.h"
#include "graph/nodes.h"
#include "model/llama-staging.h"

namespace hw {

namespace {

// llama.cpp gives layers with a window a smaller cache, if the context is longer than the window. A model loaded
// without its weights has a context of any length for nothing.
std::set<int> observe_layers(const Model& model, int32_t window) {
    llama_model_params model_params = llama_model_default_params();
    model_params.no_alloc = true;
    model_params.load_mode = LLAMA_LOAD_MODE_NONE;
    model_params.n_gpu_layers = 0;
    ggml_backend_dev_t none[] = {nullptr};
    model_params.devices = none;
    const llama_model_ptr shadow(llama_model_load_from_file(model.path().c_str(), model_params));
    llama_context_params params = graph_context_params(static_cast<uint32_t>(2 * window + 1024));
    params.swa_full = false;
    llama_context_ptr context;
    if (shadow != nullptr) {
        context = new_graph_context(shadow.get(), params);
    }
    ggml_cgraph* graph = context != nullptr ? llama_graph_reserve(context.get(), 1, 1, 1) : nullptr;
    if (graph == nullptr) {
        fail(HW_ERROR_UNSUPPORTED, "its sliding-window layers cannot be told from the others");
    }
    std::set<int> layers;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const ggml_tensor* node = ggml_graph_node(graph, i);
        const ggml_tensor* cells = root_of(node);  // all that reads or writes them is or has a view of them
        const int layer = cache_layer(cells, "cache_k_l");
        if (layer >= 0 && cells->ne[1] < static_cast<int64_t>(params.n_ctx)) {
            layers.insert(layer);
        }
    }
    return layers;
}

// What the mask of the first layer with a window says of two neighbours on both sides of a chunk's edge.
struct MaskProbe {
    const std::set<int>* layers;
    bool seen;
    bool hides_neighbour;
};

bool on_node(ggml_tensor* node, bool ask, void* data) {
    MaskProbe& probe = *static_cast<MaskProbe*>(data);
    const bool is_site = node->op == GGML_OP_FLASH_ATTN_EXT && !probe.seen &&
                         probe.layers->count(cache_layer(root_of(node->src[1]), "cache_k_l")) != 0;
    if (ask || !is_site) {
        return is_site;
    }
    ggml_fp16_t row[2];  // of the second token, its view of the first two cells
    ggml_backend_tensor_get(node->src[3], row, node->src[3]->nb[1], sizeof(row));
    probe.seen = true;
    probe.hides_neighbour = ggml_fp16_to_fp32(row[0]) < 0.0f;
    return false;  // enough: the rest need not be computed
}

// Two tokens at positions n - 1 and n: neighbours, but of two chunks.
bool observe_chunks(const Model& model, int32_t window, const std::set<int>& layers) {
    MaskProbe probe = {&layers, false, false};
    llama_context_params params = graph_context_params(256);
    params.n_threads = params.n_threads_batch = model.n_threads();
    params.cb_eval = on_node;
    params.cb_eval_user_data = &probe;
    const llama_context_ptr context = new_graph_context(model.llama(), params);
    llama_batch batch = llama_batch_init(2, 0, 1);
    batch.n_tokens = 2;
    for (int32_t i = 0; i < 2; i++) {
        batch.token[i] = 0;
        batch.pos[i] = window - 1 + i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = i == 1;
    }
    llama_decode(context.get(), batch);
    llama_batch_free(batch);
    if (!probe.seen) {
        fail(HW_ERROR_UNSUPPORTED, "the kind of its sliding window cannot be observed");
    }
    return probe.hides_neighbour;
}

SlidingWindow observe(const Model& model) {
    SlidingWindow result;
    const int32_t n = llama_model_n_swa(model.llama());
    if (n <= 0) {
        return result;
    }
    result.layers = observe_layers(model, n);
    if (!result.layers.empty()) {
        result.window = {n, observe_chunks(model, n, result.layers)};
    }
    return result;
}

}  // namespace

const SlidingWindow& sliding_window_of(const Model& model) {
    return model.sliding_window().get([&] { return observe(model); });
}

}  // namespace hw
