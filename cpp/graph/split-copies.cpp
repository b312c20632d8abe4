#include "graph/split-copies.h"

#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/llama-staging.h"

namespace hw {

namespace {

struct CopyName {
    std::string device;
    std::string original;  // empty: no copy
};

// The scheduler names a copy "DEVICE#NAME#N".
CopyName parse(const ggml_tensor* tensor) {
    const char* first = tensor != nullptr ? std::strchr(tensor->name, '#') : nullptr;
    if (first == nullptr || tensor->op != GGML_OP_NONE || tensor->view_src != nullptr) {
        return {};
    }
    const char* last = std::strrchr(tensor->name, '#');
    if (first == last) {  // the end did not fit
        fail(HW_ERROR_UNSUPPORTED, "the name of a device is too long: '%s'", tensor->name);
    }
    return {std::string(tensor->name, first), std::string(first + 1, last)};
}

bool is_alike(const ggml_tensor* a, const ggml_tensor* b) {
    return a->type == b->type && std::memcmp(a->ne, b->ne, sizeof(a->ne)) == 0;
}

class Originals {
  public:
    Originals(ggml_cgraph* graph, const llama_model* model) : graph_(graph) {
        for (const auto& [name, tensor] : llama_internal_get_tensor_map(model)) {
            weights_[name] = tensor;
        }
        for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
            const ggml_tensor* node = ggml_graph_node(graph, i);
            read_.insert(node->src, node->src + GGML_MAX_SRC);
            read_.insert(node->view_src);
        }
    }

    ggml_tensor* of(const ggml_tensor* copy, const CopyName& name) {
        ggml_tensor*& original = known_[copy];
        if (original == nullptr) {
            original = find(copy, name);
        }
        return original;
    }

    void add_node(ggml_tensor* node) { nodes_[node->name].push_back(node); }

  private:
    ggml_tensor* find(const ggml_tensor* copy, const CopyName& name) {
        std::vector<ggml_tensor*> alike;
        for (ggml_tensor* node : nodes_[name.original]) {
            if (is_alike(node, copy)) {
                alike.push_back(node);
            }
        }
        if (alike.size() > 1) {
            return last_of(alike, name);
        }
        const auto weight = weights_.find(name.original);
        ggml_tensor* found = !alike.empty()             ? alike[0]
                             : weight != weights_.end() ? weight->second
                                                        : anywhere(copy, name);
        if (found == nullptr || !is_alike(found, copy)) {
            fail(HW_ERROR_UNSUPPORTED, "devices exchange '%s', which its graph does not have", name.original.c_str());
        }
        return found;
    }

    // Inputs; and nodes without numbers, which backends that order a graph anew may put behind those that read them
    // (the tokens but the last one, where there is one).
    ggml_tensor* anywhere(const ggml_tensor* copy, const CopyName& name) const {
        std::vector<ggml_tensor*> alike;
        for (int i = 0; i < ggml_graph_n_nodes(graph_); i++) {
            ggml_tensor* node = ggml_graph_node(graph_, i);
            if (node->name == name.original && is_alike(node, copy)) {
                alike.push_back(node);
            }
        }
        return alike.size() == 1 ? alike[0] : ggml_graph_get_tensor(graph_, name.original.c_str());
    }

    // Some names stand once in every layer. A node that nothing reads is read through a copy: the last one of that name
    // is meant, if it is such a node and no other copy is of it.
    ggml_tensor* last_of(const std::vector<ggml_tensor*>& alike, const CopyName& name) {
        ggml_tensor* last = alike.back();
        if (read_.count(last) != 0 || !copied_.insert({name.device, last}).second) {
            fail(HW_ERROR_UNSUPPORTED,
                 "devices exchange one of several tensors named '%s': with all layers on one device that has all of "
                 "the model's operations, or n_gpu_layers=0, they do not",
                 name.original.c_str());
        }
        return last;
    }

    ggml_cgraph* graph_;
    std::map<std::string, ggml_tensor*> weights_;
    std::map<std::string, std::vector<ggml_tensor*>> nodes_;  // those before the node that is looked at, in order
    std::set<const ggml_tensor*> read_;                       // by a node, without a copy between
    std::map<const ggml_tensor*, ggml_tensor*> known_;        // copy -> original
    std::set<std::pair<std::string, const ggml_tensor*>> copied_;
};

// Two masks can have one name, so it cannot be told which one a copy is of; nor need it: ours take their place.
ggml_tensor* const* mask_of(const ggml_tensor* node) {
    return node->op == GGML_OP_FLASH_ATTN_EXT ? &node->src[3] : node->op == GGML_OP_SOFT_MAX ? &node->src[1] : nullptr;
}

}  // namespace

void remove_split_copies(ggml_cgraph* graph, const llama_model* model) {
    Originals originals(graph, model);
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        ggml_tensor* node = ggml_graph_node(graph, i);
        for (ggml_tensor*& source : node->src) {
            const CopyName name = parse(source);
            if (!name.original.empty() && &source != mask_of(node)) {
                source = originals.of(source, name);
            }
        }
        originals.add_node(node);
    }
}

}  // namespace hw
