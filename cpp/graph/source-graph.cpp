#include "graph/source-graph.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "graph/rope.h"
#include "graph/split-copies.h"
#include "model/backends.h"
#include "model/llama-staging.h"

namespace hw {

namespace {

// llama.cpp rounds n_ctx up to this.
constexpr uint32_t smallest_n_ctx = 256;

int layer_of(const ggml_tensor* tensor, const char* prefix) { return cache_layer(root_of(tensor), prefix); }

// From a tensor back to the ROPE it was computed by; plain says whether only reshapes lie between.
const ggml_tensor* find_rope(const ggml_tensor* tensor, const std::unordered_set<const ggml_tensor*>& rope_results,
                             bool* plain) {
    *plain = true;
    while (tensor != nullptr && tensor->op != GGML_OP_ROPE) {
        if (rope_results.count(tensor) == 0) {
            return nullptr;
        }
        *plain = *plain && is_reshape(tensor);
        const ggml_tensor* next = nullptr;
        for (const ggml_tensor* source : tensor->src) {
            if (source != nullptr && rope_results.count(source) != 0) {
                next = source;
                break;
            }
        }
        tensor = next;
    }
    return tensor;
}

std::unordered_set<const ggml_tensor*> find_rope_results(ggml_cgraph* graph, const AttentionNodes& attention) {
    std::unordered_set<const ggml_tensor*> found;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const ggml_tensor* node = ggml_graph_node(graph, i);
        bool from_rope = node->op == GGML_OP_ROPE;
        for (const ggml_tensor* source : node->src) {
            from_rope = from_rope || (source != nullptr && found.count(source) != 0);
        }
        if (from_rope && attention.flash.count(node) == 0) {
            found.insert(node);
        }
    }
    return found;
}

AttentionSite read_site(const ggml_tensor* node, const SourceGraph& source) {
    AttentionSite site = {};
    site.node = node;
    site.layer = layer_of(node->src[1], "cache_k_l");
    site.is_v_in_k =
        root_of(node->src[2]) == root_of(node->src[1]) && node->src[2]->view_offs == node->src[1]->view_offs;
    if (site.layer < 0 || (!site.is_v_in_k && layer_of(node->src[2], "cache_v_l") != site.layer)) {
        unsupported(node, "attends to something else than one layer of the KV cache");
    }
    if (node->src[3] != nullptr && node->src[3]->op != GGML_OP_NONE) {
        unsupported(node, "computes which keys it attends to (sparse attention)");
    }
    if (node->src[0]->ne[3] != 1 || node->src[1]->ne[3] != 1) {
        unsupported(node, "attends in several streams");
    }
    site.rope = find_rope(node->src[0], source.rope_results, &site.is_plain_rope);
    return site;
}

// Whether turning a key on gives the same before and after this node.
bool commutes_with_rope(const ggml_tensor* node) {
    return is_reshape(node) || node->op == GGML_OP_RMS_NORM || node->op == GGML_OP_L2_NORM ||
           node->op == GGML_OP_SCALE || (node->op == GGML_OP_REPEAT && node->ne[0] == node->src[0]->ne[0]);
}

// Goes back from what is stored to the ROPE it was turned by, and notes what was done to the key after that.
void read_key_turn(const ggml_tensor* stored, const SourceGraph& source, KvLayer* layer) {
    bool plain = true;
    const ggml_tensor* rope = find_rope(stored, source.rope_results, &plain);
    if (rope == nullptr) {
        return;
    }
    layer->key_rope = rope;
    layer->key_offset = rope->op_params[rope_offset];
    for (const ggml_tensor* node = stored; node != rope;) {
        const bool rope_is_second = node->src[1] != nullptr && source.rope_results.count(node->src[1]) != 0;
        if (node->op == GGML_OP_MUL && layer->key_gain == nullptr && !rope_is_second && is_weight(node->src[1])) {
            layer->key_gain = node;
        } else if (node->op == GGML_OP_CONCAT && node->op_params[0] == 0) {
            layer->key_offset += rope_is_second ? node->src[0]->ne[0] : 0;
        } else if (!commutes_with_rope(node)) {
            unsupported(node, "changes keys after their rotation, in a way that cannot be taken back");
        }
        node = node->src[rope_is_second ? 1 : 0];
    }
}

// Values of a transposed cache are written number by number, as rows of one: the reshape to those is undone.
const ggml_tensor* value_rows(const ggml_tensor* node) {
    const ggml_tensor* rows = node->src[0];
    return rows->ne[0] == 1 && rows->op == GGML_OP_RESHAPE ? rows->src[0] : rows;
}

void read_store(const ggml_tensor* node, SourceGraph* source) {
    const int key_layer = layer_of(node, "cache_k_l");
    const int value_layer = layer_of(node, "cache_v_l");
    if (key_layer >= 0) {
        source->key_stores[node] = {key_layer, node->src[0]};
        KvLayer& layer = source->layers[key_layer];
        read_key_turn(node->src[0], *source, &layer);
        if (layer.key_gain != nullptr) {
            source->key_gains.insert(layer.key_gain);
        }
    } else if (value_layer >= 0) {
        source->value_stores[node] = {value_layer, value_rows(node)};
    }
}

void read_layer(const AttentionSite& site, SourceGraph* source) {
    KvLayer& layer = source->layers[site.layer];
    const ggml_tensor* k = site.node->src[1];
    const ggml_tensor* v = site.node->src[2];
    layer.d_k = k->ne[0];
    layer.d_v = v->ne[0];
    layer.n_head_kv = k->ne[2];
    layer.is_v_in_k = site.is_v_in_k;
    layer.buffer_type = ggml_backend_buffer_get_type(root_of(k)->buffer);
}

// What KvMover and Rewire::rotated_query rely on. All sites with a rotation have a gain, or none: passes set one kind
// of positions.
void check_key_turns(const SourceGraph& source) {
    for (const auto& [index, layer] : source.layers) {
        const bool fits_gain = layer.key_gain == nullptr || layer.key_gain->src[1]->ne[0] == layer.d_k;
        if (layer.key_rope != nullptr &&
            (!fits_gain || layer.key_offset + layer.key_rope->op_params[rope_n_dims] > layer.d_k)) {
            unsupported(layer.key_rope, "turns keys of another size than those that are stored");
        }
    }
    for (const auto& [node, site] : source.sites) {
        if (!source.key_gains.empty() && site.rope != nullptr && (site.key_gain == nullptr || site.is_plain_rope)) {
            unsupported(node, "differs from other layers in what follows its rotation");
        }
    }
}

// Positions as an input of something else than ROPE are learned, absolute ones, which cannot be shifted. Where ALiBi
// tells the distances, they may stay as they were when a token was written.
void check_inputs(const SourceGraph& source) {
    const bool has_alibi = std::all_of(source.sites.begin(), source.sites.end(),
                                       [](const auto& entry) { return entry.second.max_bias() > 0.0f; });
    for (int i = 0; i < ggml_graph_n_nodes(source.graph); i++) {
        const ggml_tensor* node = ggml_graph_node(source.graph, i);
        for (const ggml_tensor* input : node->src) {
            const bool is_position = input != nullptr && std::strcmp(input->name, "inp_pos") == 0;
            if (is_position && node->op != GGML_OP_ROPE && !(has_alibi && node->op == GGML_OP_GET_ROWS)) {
                unsupported(node, "uses absolute positions, which cannot be shifted");
            }
        }
    }
}

// As llama.cpp reads it. Models with chunked windows, and those without these keys, have Llama 4's numbers.
QueryTemperature read_temperature(const Model& model, bool is_chunked) {
    const float factor = std::strtof(model.metadata("%s.attention.temperature_scale").c_str(), nullptr);
    if (is_chunked || factor == 0.0f) {
        return {0.1f, 8192.0f, 1.0f};
    }
    float length = std::strtof(model.metadata("%s.attention.temperature_length").c_str(), nullptr);
    if (length == 0.0f) {
        length = std::strtof(model.metadata("%s.rope.scaling.original_context_length").c_str(), nullptr);
    }
    return {factor, std::max(1.0f, length), 0.0f};
}

// Models with two sets of frequency factors use the long ones in contexts beyond the original length.
ggml_tensor* find_long_factors(const Model& model, int32_t n_ctx) {
    const std::string original = model.metadata("%s.rope.scaling.original_context_length");
    const long length = original.empty() ? llama_model_n_ctx_train(model.llama()) : std::atol(original.c_str());
    for (const auto& [name, tensor] : llama_internal_get_tensor_map(model.llama())) {
        if (n_ctx > length && name == "rope_factors_long.weight") {
            return tensor;
        }
    }
    return nullptr;
}

void use_long_factors(ggml_cgraph* graph, ggml_tensor* factors) {
    for (int i = 0; factors != nullptr && i < ggml_graph_n_nodes(graph); i++) {
        ggml_tensor* node = ggml_graph_node(graph, i);
        if (node->op == GGML_OP_ROPE && node->src[2] != nullptr &&
            std::strcmp(node->src[2]->name, "rope_factors_short.weight") == 0) {
            node->src[2] = factors;
        }
    }
}

// Not all architectures name their logits.
bool is_logits(const ggml_tensor* node, int64_t n_vocab, int64_t n_outputs) {
    return node->ne[0] == n_vocab && node->ne[1] == n_outputs && node->ne[2] == 1 && node->type == GGML_TYPE_F32;
}

}  // namespace

float AttentionSite::scale() const { return float_param(node, 0); }
float AttentionSite::max_bias() const { return float_param(node, 1); }
float AttentionSite::soft_cap() const { return float_param(node, 2); }

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

bool is_reshape(const ggml_tensor* tensor) {
    return tensor->op == GGML_OP_VIEW || tensor->op == GGML_OP_RESHAPE || tensor->op == GGML_OP_PERMUTE ||
           tensor->op == GGML_OP_TRANSPOSE || tensor->op == GGML_OP_CONT;
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

// As llama.cpp counts them, for a scheduler of its own.
size_t most_nodes(const llama_model* model) {
    return std::max<size_t>(1024, 8 * llama_internal_get_tensor_map(model).size());
}

llama_context_params graph_context_params(uint32_t n_ctx) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = n_ctx;
    params.n_batch = n_ctx;
    params.n_ubatch = 32;  // its compute buffers grow when a larger graph is asked for
    params.n_seq_max = 1;
    params.n_outputs_max = 1;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.kv_unified = true;
    params.no_perf = true;
    return params;
}

llama_context_ptr new_graph_context(llama_model* model, const llama_context_params& params) {
    LogScope log;
    require_memory(most_nodes(model) * n_bytes_of_scheduler, "llama.cpp's graph of the model");
    llama_context_ptr context(llama_init_from_model(model, params));
    if (context == nullptr) {
        const std::string errors = log.errors();  // of a failed allocation too they are all that is told
        const bool is_memory = errors.find("alloc") != std::string::npos;
        fail(is_memory ? HW_ERROR_MEMORY : HW_ERROR_UNSUPPORTED, "llama.cpp cannot make a context for this model: %s",
             errors.c_str());
    }
    return context;
}

GraphSource::GraphSource(ModelPtr model, int32_t n_ctx) : model_(std::move(model)) {
    sliding_window_ = observe_sliding_window(*model_);
    temperature_ = read_temperature(*model_, sliding_window_.window.is_chunked);
    long_factors_ = find_long_factors(*model_, n_ctx);
    context_ = new_graph_context(model_->llama(), graph_context_params(smallest_n_ctx));
    model_->adapters().apply(context_.get());
}

SourceGraph GraphSource::build(int32_t n_tokens, int32_t n_outputs) {
    try {
        return read(n_tokens, n_outputs);
    } catch (const Error& error) {
        if (error.status() != HW_ERROR_UNSUPPORTED) {
            throw;
        }
        fail(HW_ERROR_UNSUPPORTED, "architecture '%s': %s", model_->architecture().c_str(), error.what());
    }
}

SourceGraph GraphSource::read(int32_t n_tokens, int32_t n_outputs) {
    LogScope log;
    SourceGraph source = {};
    source.graph =
        llama_graph_reserve(context_.get(), static_cast<uint32_t>(n_tokens), 1, static_cast<uint32_t>(n_outputs));
    if (source.graph == nullptr) {
        fail(HW_ERROR_MEMORY, "no memory for a graph of %d tokens: %s", n_tokens, log.errors().c_str());
    }
    remove_split_copies(source.graph, model_->llama());
    source.n_pos_per_token = 1;
    source.temperature = temperature_;
    use_long_factors(source.graph, long_factors_);
    source.attention = find_attention(source.graph);
    source.rope_results = find_rope_results(source.graph, source.attention);
    for (int i = 0; i < ggml_graph_n_nodes(source.graph); i++) {
        const ggml_tensor* node = ggml_graph_node(source.graph, i);
        const auto attention = source.attention.flash.find(node);
        if (attention != source.attention.flash.end()) {
            AttentionSite site = read_site(attention->second, source);
            site.window = sliding_window_.of(site.layer);
            site.key_rope = source.layers[site.layer].key_rope;
            site.key_gain = source.layers[site.layer].key_gain;
            source.sites[node] = site;
            read_layer(site, &source);
        } else if (node->op == GGML_OP_SET_ROWS) {
            read_store(node, &source);
        } else if (std::strcmp(node->name, "result_output") == 0) {
            source.logits = node;
        } else if (node->op == GGML_OP_ROPE) {
            source.n_pos_per_token = static_cast<int>(node->src[1]->ne[0] / node->ne[2]);
        } else if (!is_reshape(node) && is_kv_leaf(root_of(node))) {
            unsupported(node, "writes to the KV cache in an unknown way");
        }
    }
    if (source.sites.empty() || source.key_stores.empty()) {
        fail(HW_ERROR_UNSUPPORTED, "the graph of this model has no attention over a KV cache that can be read");
    }
    const ggml_tensor* last = ggml_graph_node(source.graph, -1);
    if (source.logits == nullptr && is_logits(last, model_->n_vocab(), n_outputs)) {
        source.logits = last;
    }
    if (source.logits == nullptr) {
        fail(HW_ERROR_UNSUPPORTED, "the graph of this model ends in no logits");
    }
    check_inputs(source);
    check_key_turns(source);
    return source;
}

}  // namespace hw
