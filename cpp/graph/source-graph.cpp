#include "graph/source-graph.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "graph/graph-context.h"
#include "graph/model-spec.h"
#include "graph/nodes.h"
#include "graph/rope.h"
#include "graph/split-copies.h"
#include "model/backends.h"
#include "model/llama-staging.h"

namespace hw {

namespace {

// llama.cpp rounds n_ctx up to this.
constexpr uint32_t smallest_n_ctx = 256;

// Graphs that are kept: sizes of passes. One of 64 layers takes 2 MB.
constexpr size_t max_known = 16;

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

// What we know of the attention: an update of llama.cpp may have more, and mean something by it.
void check_params(const ggml_tensor* node) {
    constexpr int n_known = 5;  // scale, max_bias, soft cap, precision, n_kv_max: a bound of what the mask lets through
    for (int i = n_known; i < static_cast<int>(GGML_MAX_OP_PARAMS / sizeof(int32_t)); i++) {
        if (node->op_params[i] != 0) {
            unsupported(node, "has parameters that are not known");
        }
    }
    for (int i = 5; i < GGML_MAX_SRC; i++) {
        if (node->src[i] != nullptr) {
            unsupported(node, "has more inputs than are known");
        }
    }
}

AttentionSite read_site(const ggml_tensor* node, const SourceGraph& source) {
    AttentionSite site = {};
    site.node = node;
    const int layer = layer_of(node->src[1], "cache_k_l");
    site.is_v_in_k =
        root_of(node->src[2]) == root_of(node->src[1]) && node->src[2]->view_offs == node->src[1]->view_offs;
    if (layer < 0 || (!site.is_v_in_k && layer_of(node->src[2], "cache_v_l") != layer)) {
        unsupported(node, "attends to something else than one layer of the KV cache");
    }
    if (node->src[3] != nullptr && node->src[3]->op != GGML_OP_NONE) {
        unsupported(node, "computes which keys it attends to (sparse attention)");
    }
    if (node->src[0]->ne[3] != 1 || node->src[1]->ne[3] != 1) {
        unsupported(node, "attends in several streams");
    }
    check_params(node);
    site.spec = {layer,
                 node->src[0]->ne[2],
                 float_param(node, 0),
                 float_param(node, 1),
                 float_param(node, 2),
                 node->src[4] != nullptr};
    site.rope = find_rope(node->src[0], source.rope_results, &site.is_plain_rope);
    return site;
}

// Whether turning a key on gives the same before and after this node.
bool commutes_with_rope(const ggml_tensor* node) {
    return is_reshape(node) || node->op == GGML_OP_RMS_NORM || node->op == GGML_OP_L2_NORM ||
           node->op == GGML_OP_SCALE || (node->op == GGML_OP_REPEAT && node->ne[0] == node->src[0]->ne[0]);
}

KeyChain read_key_chain(const ggml_tensor* stored, const SourceGraph& source) {
    KeyChain chain;
    bool plain = true;
    const ggml_tensor* rope = find_rope(stored, source.rope_results, &plain);
    if (rope == nullptr) {
        return chain;
    }
    chain.rope = rope;
    chain.offset = rope_params(*rope).offset();
    for (const ggml_tensor* node = stored; node != rope;) {
        const bool rope_is_second = node->src[1] != nullptr && source.rope_results.count(node->src[1]) != 0;
        if (node->op == GGML_OP_MUL && chain.gain == nullptr && !rope_is_second && is_weight(node->src[1])) {
            chain.gain = node;
        } else if (node->op == GGML_OP_CONCAT && node->op_params[0] == 0) {
            chain.offset += rope_is_second ? node->src[0]->ne[0] : 0;
        } else if (!commutes_with_rope(node)) {
            unsupported(node, "changes keys after their rotation, in a way that cannot be taken back");
        }
        node = node->src[rope_is_second ? 1 : 0];
    }
    return chain;
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
        const KeyChain chain = read_key_chain(node->src[0], *source);
        source->key_chains[key_layer] = chain;
        if (chain.gain != nullptr) {
            source->key_gains.insert(chain.gain);
        }
    } else if (value_layer >= 0) {
        source->value_stores[node] = {value_layer, value_rows(node)};
    }
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
bool is_logits(const ggml_tensor* node, int64_t n_vocab, int64_t n_rows) {
    return node->ne[0] == n_vocab && node->ne[1] == n_rows && node->ne[2] == 1 && node->type == GGML_TYPE_F32;
}

// States are known to what is re-wired, and to nothing else that outputs or keys are computed from.
void check_states(const SourceGraph& source) {
    std::vector<const ggml_tensor*> waiting = {source.logits};
    std::unordered_set<const ggml_tensor*> seen;
    for (const auto* stores : {&source.key_stores, &source.value_stores}) {
        for (const auto& entry : *stores) {
            waiting.push_back(entry.second.rows);
        }
    }
    while (!waiting.empty()) {
        const ggml_tensor* node = waiting.back();
        waiting.pop_back();
        if (node == nullptr || !seen.insert(node).second) {
            continue;
        }
        const auto recurrence = source.recurrences.find(node);
        const auto site = source.sites.find(node);
        if (recurrence != source.recurrences.end()) {
            const auto& sources = recurrence->second.sources;
            waiting.insert(waiting.end(), sources.begin(), sources.end());
        } else if (site != source.sites.end()) {
            waiting.push_back(site->second.node->src[0]);
        } else {
            if (source.states.count(root_of(node)) != 0) {
                unsupported(node, "reads a state of a recurrent layer in an unknown way");
            }
            waiting.insert(waiting.end(), std::begin(node->src), std::end(node->src));
        }
    }
}

bool reads_out_ids(ggml_cgraph* graph) {
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        for (const ggml_tensor* source : ggml_graph_node(graph, i)->src) {
            if (source != nullptr && has_name(root_of(source), "out_ids")) {
                return true;
            }
        }
    }
    return false;
}

}  // namespace

GraphSource::GraphSource(ModelPtr model, int32_t n_ctx) : model_(std::move(model)) {
    long_factors_ = find_long_factors(*model_, n_ctx);
    context_ = new_graph_context(model_->llama(), graph_context_params(smallest_n_ctx));
    model_->adapters().apply(context_.get());
    spec_ = &model_->spec(long_factors_ != nullptr).get([&] { return read_spec(); });
}

ModelSpec GraphSource::read_spec() {
    const SourceGraph& source = of(1, 1);
    return named([&] { return model_spec_of(source, *model_); });
}

const SourceGraph& GraphSource::of(int32_t n_tokens, int32_t n_outputs) {
    const auto found = std::find_if(known_.begin(), known_.end(), [&](const Known& known) {
        return known.n_tokens == n_tokens && known.n_outputs == n_outputs;
    });
    if (found != known_.end()) {
        known_.splice(known_.begin(), known_, found);
    } else {
        known_.push_front({n_tokens, n_outputs, named([&] { return read(n_tokens, n_outputs); })});
        if (known_.size() > max_known) {
            known_.pop_back();
        }
    }
    return known_.front().graph;
}

SourceGraph GraphSource::read(int32_t n_tokens, int32_t n_outputs) {
    LogScope log;
    SourceGraph source = {};
    ggml_cgraph* built =
        llama_graph_reserve(context_.get(), static_cast<uint32_t>(n_tokens), 1, static_cast<uint32_t>(n_outputs));
    n_asked_++;
    if (built == nullptr) {
        fail(HW_ERROR_MEMORY, "no memory for a graph of %d tokens: %s", n_tokens, log.errors().c_str());
    }
    remove_split_copies(built, model_->llama());
    use_long_factors(built, long_factors_);
    source.kept = keep_graph(built);
    source.graph = source.kept.graph;
    source.attention = find_attention(source.graph);
    source.rope_results = find_rope_results(source.graph, source.attention);
    source.states = find_states(source.graph);
    source.recurrences = find_recurrences(source.graph, source.states);
    for (int i = 0; i < ggml_graph_n_nodes(source.graph); i++) {
        const ggml_tensor* node = ggml_graph_node(source.graph, i);
        const auto attention = source.attention.flash.find(node);
        if (attention != source.attention.flash.end()) {
            source.sites[node] = read_site(attention->second, source);
        } else if (node->op == GGML_OP_SET_ROWS) {
            read_store(node, &source);
        } else if (std::strcmp(node->name, "result_output") == 0) {
            source.logits = node;
        } else if (!is_view(node) && is_kv_leaf(root_of(node))) {
            unsupported(node, "writes to the KV cache in an unknown way");
        }
    }
    if ((source.sites.empty() || source.key_stores.empty()) && source.recurrences.empty()) {
        fail(HW_ERROR_UNSUPPORTED, "the graph of this model has no attention over a KV cache that can be read");
    }
    const ggml_tensor* last = ggml_graph_node(source.graph, -1);
    source.reads_out_ids = reads_out_ids(source.graph);
    if (source.logits == nullptr && is_logits(last, model_->n_vocab(), source.reads_out_ids ? n_outputs : n_tokens)) {
        source.logits = last;
    }
    if (source.logits == nullptr) {
        fail(HW_ERROR_UNSUPPORTED, "the graph of this model ends in no logits");
    }
    check_states(source);
    return source;
}

}  // namespace hw
