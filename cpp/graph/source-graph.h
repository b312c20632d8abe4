// The graph that llama.cpp builds for a model, read but never run: where it attends, what it stores, what it is fed.
// Nothing here knows an architecture by name; what cannot be read is refused by its name in the graph.
#pragma once

#include <map>
#include <unordered_set>
#include <vector>

#include "ggml-cpp.h"
#include "graph/attention-nodes.h"
#include "graph/sliding-window.h"
#include "model/model.h"

namespace hw {

// One FLASH_ATTN_EXT node, of llama.cpp's graph or one that stands for several nodes of it (graph/attention-nodes.h).
struct AttentionSite {
    const ggml_tensor* node;  // src: q [d_k, T, H], k [d_k, n, Hkv], v [d_v, n, Hkv], mask, sinks; result [d_v, H, T]
    int layer;                // N of cache_k_lN / cache_v_lN
    // The rotation of the query, and whether only reshapes stand between it and the attention. NULL: not rotated.
    const ggml_tensor* rope;
    bool is_plain_rope;
    Window window;
    bool is_v_in_k;  // MLA: values are the first d_v numbers of the keys
    // Of the layer's keys; NULL: none, see KvLayer.
    const ggml_tensor* key_rope;
    const ggml_tensor* key_gain;

    float scale() const;
    float max_bias() const;  // ALiBi
    float soft_cap() const;
    int64_t n_tokens() const { return node->src[0]->ne[1]; }
    int64_t n_head() const { return node->src[0]->ne[2]; }
};

// What a layer stores a token.
struct KvLayer {
    int64_t d_k = 0;  // size of a key of one head
    int64_t d_v = 0;
    int64_t n_head_kv = 0;
    ggml_backend_buffer_type_t buffer_type = nullptr;
    bool is_v_in_k = false;
    // What turned its keys, so that they can be turned on: ROPE, on the dimensions from key_offset on. NULL: nothing.
    const ggml_tensor* key_rope = nullptr;
    // Keys may be multiplied after that (the weights of a norm), which would make them depend on more than distances.
    // So this node is left out, and the weights go to the queries: see Rewire::rotated_query. NULL: none.
    const ggml_tensor* key_gain = nullptr;  // MUL, by F32 [d_k]
    int64_t key_offset = 0;
};

// A SET_ROWS node that writes keys or values.
struct KvRows {
    int layer;
    const ggml_tensor* rows;  // [d * Hkv, T]
};

// Queries may be scaled by log(floor((position + offset) / length) + 1) * factor + 1.
struct QueryTemperature {
    float factor;
    float length;
    float offset;
};

struct SourceGraph {
    ggml_cgraph* graph;
    std::map<int, KvLayer> layers;
    AttentionNodes attention;
    std::map<const ggml_tensor*, AttentionSite> sites;    // by the node whose place the result takes
    std::map<const ggml_tensor*, KvRows> key_stores;      // by SET_ROWS node
    std::map<const ggml_tensor*, KvRows> value_stores;    // by SET_ROWS node
    std::unordered_set<const ggml_tensor*> rope_results;  // nodes computed from a ROPE, up to the next attention
    std::unordered_set<const ggml_tensor*> key_gains;     // nodes left out, see KvLayer
    const ggml_tensor* logits;                            // [n_vocab, n_outputs]
    int n_pos_per_token;                                  // rows of inp_pos: 4 for M-RoPE, else 1
    QueryTemperature temperature;
};

// Builds graphs through a llama_context that exists only for this: its own KV cache is as small as llama.cpp allows.
class GraphSource {
  public:
    // n_ctx: of our cache; some models rotate otherwise in a long one. Throws HW_ERROR_UNSUPPORTED.
    GraphSource(ModelPtr model, int32_t n_ctx);
    // Valid until the next call. Throws HW_ERROR_UNSUPPORTED, HW_ERROR_MEMORY.
    SourceGraph build(int32_t n_tokens, int32_t n_outputs);

  private:
    SourceGraph read(int32_t n_tokens, int32_t n_outputs);

    ModelPtr model_;
    llama_context_ptr context_;
    SlidingWindow sliding_window_;
    QueryTemperature temperature_;
    ggml_tensor* long_factors_ = nullptr;  // frequency factors to use instead of those of the small context
};

// The settings of a context that is only there to build graphs.
llama_context_params graph_context_params(uint32_t n_ctx);
// Throws HW_ERROR_MEMORY, HW_ERROR_UNSUPPORTED.
llama_context_ptr new_graph_context(llama_model* model, const llama_context_params& params);
// The leaf that a view is a view of, itself if it is none.
const ggml_tensor* root_of(const ggml_tensor* tensor);
// N where a leaf is named prefix + N, else -1.
int cache_layer(const ggml_tensor* leaf, const char* prefix);
bool is_kv_leaf(const ggml_tensor* leaf);
// A leaf that holds data already: a weight, or a cache of llama.cpp's.
bool is_weight(const ggml_tensor* leaf);
// Ops that only say how data is read: no arithmetic.
bool is_reshape(const ggml_tensor* tensor);
float float_param(const ggml_tensor* node, int index);
// Throws HW_ERROR_UNSUPPORTED with the node's name and this reason.
[[noreturn]] void unsupported(const ggml_tensor* node, const char* why);

}  // namespace hw
