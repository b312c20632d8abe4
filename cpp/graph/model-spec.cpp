#include "graph/model-spec.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "graph/nodes.h"
#include "graph/rope.h"
#include "graph/sliding-window.h"

namespace hw {

namespace {

ggml_tensor* weight(ggml_tensor* tensor, const ggml_tensor* of) {
    if (tensor != nullptr && !is_weight(tensor)) {
        unsupported(of, "rotates or scales keys by what is no weight");
    }
    return tensor;
}

LayerSpec read_layer(const AttentionSite& site, const KeyChain& chain) {
    LayerSpec layer;
    const ggml_tensor* k = site.node->src[1];
    layer.d_k = k->ne[0];
    layer.d_v = site.node->src[2]->ne[0];
    layer.n_head_kv = k->ne[2];
    layer.is_v_in_k = site.is_v_in_k;
    layer.buffer_type = ggml_backend_buffer_get_type(root_of(k)->buffer);
    if (chain.rope != nullptr) {
        layer.key_rope = without_magnitude(rope_params(*chain.rope));
        layer.key_rope->set_offset(chain.offset);
        weight(layer.key_rope->factors, chain.rope);
    }
    if (chain.gain != nullptr) {
        layer.key_gain = weight(chain.gain->src[1], chain.gain);
    }
    const bool fits_gain = layer.key_gain == nullptr || layer.key_gain->ne[0] == layer.d_k;
    if (layer.key_rope && (!fits_gain || layer.key_rope->offset() + layer.key_rope->n_dims() > layer.d_k)) {
        unsupported(chain.rope, "turns keys of another size than those that are stored");
    }
    return layer;
}

// All sites with a rotation have a gain, or none: passes set one kind of positions.
void check_gains(const SourceGraph& source, const ModelSpec& spec) {
    for (const auto& [node, site] : source.sites) {
        const bool has_gain = spec.layers.at(site.spec.layer).key_gain != nullptr;
        if (!source.key_gains.empty() && site.rope != nullptr && (!has_gain || site.is_plain_rope)) {
            unsupported(node, "differs from other layers in what follows its rotation");
        }
    }
}

// Whether they may be copies of one mask, for two devices: "DEVICE#NAME#N", see graph/split-copies.h.
bool may_be_one(const ggml_tensor* a, const ggml_tensor* b) {
    const auto is_copy = [](const ggml_tensor* mask) {
        return mask != nullptr && std::strchr(mask->name, '#') != nullptr;
    };
    return a == b ||
           ((is_copy(a) || is_copy(b)) && (a == nullptr || b == nullptr || std::strcmp(a->name, b->name) != 0));
}

// Layers that read another mask see other keys: then a window was found for some of them, and not for others.
void check_windows(const SourceGraph& source, const ModelSpec& spec) {
    std::map<const ggml_tensor*, Window> known;
    for (const auto& [node, site] : source.sites) {
        const Window& window = spec.layers.at(site.spec.layer).window;
        for (const auto& [mask, other] : known) {
            const bool is_same = mask == site.node->src[3];
            if ((is_same || !may_be_one(mask, site.node->src[3])) && is_same != (other == window)) {
                unsupported(node, "reads another mask than other layers, or the same, against what its window is");
            }
        }
        known[site.node->src[3]] = window;
    }
}

// Positions as an input of something else than ROPE are learned, absolute ones, which cannot be shifted. Where ALiBi
// tells the distances, they may stay as they were when a token was written.
void read_positions(const SourceGraph& source, ModelSpec* spec) {
    const bool has_alibi = std::all_of(source.sites.begin(), source.sites.end(),
                                       [](const auto& entry) { return entry.second.spec.max_bias > 0.0f; });
    for (int i = 0; i < ggml_graph_n_nodes(source.graph); i++) {
        const ggml_tensor* node = ggml_graph_node(source.graph, i);
        if (node->op == GGML_OP_ROPE) {
            spec->n_pos_per_token = static_cast<int>(node->src[1]->ne[0] / node->ne[2]);
            continue;
        }
        for (const ggml_tensor* input : node->src) {
            if (input == nullptr || !has_name(input, "inp_pos")) {
                continue;
            }
            if (!has_alibi || node->op != GGML_OP_GET_ROWS) {
                unsupported(node, "uses absolute positions, which cannot be shifted");
            }
            spec->n_positions = node->src[0]->ne[1];
        }
    }
}

// In the order of the graph, which is that of graphs of all sizes.
std::vector<Recurrence> read_recurrences(const SourceGraph& source) {
    std::vector<Recurrence> recurrences(source.recurrences.size());
    for (const auto& [node, site] : source.recurrences) {
        recurrences[site.index].shape = site.shape;
    }
    lay_out(&recurrences);
    return recurrences;
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

}  // namespace

ModelSpec model_spec_of(const SourceGraph& source, const Model& model) {
    const SlidingWindow& sliding = sliding_window_of(model);
    ModelSpec spec;
    for (int i = 0; i < ggml_graph_n_nodes(source.graph); i++) {
        const auto found = source.sites.find(ggml_graph_node(source.graph, i));
        if (found != source.sites.end()) {
            const AttentionSite& site = found->second;
            const auto chain = source.key_chains.find(site.spec.layer);
            LayerSpec layer = read_layer(site, chain != source.key_chains.end() ? chain->second : KeyChain{});
            layer.window = sliding.of(site.spec.layer);
            spec.layers[site.spec.layer] = layer;
            spec.attentions.push_back(site.spec);
        }
    }
    spec.recurrences = read_recurrences(source);
    spec.temperature = read_temperature(model, sliding.window.is_chunked);
    read_positions(source, &spec);
    check_gains(source, spec);
    check_windows(source, spec);
    return spec;
}

}  // namespace hw
