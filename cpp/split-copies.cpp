#include "split-copies.h"

#include <cstring>
#include <map>
#include <string>

#include "error.h"
#include "llama-staging.h"

namespace hw {

namespace {

using ByName = std::multimap<std::string, ggml_tensor*>;

// The scheduler names a copy "DEVICE#NAME#N".
std::string name_of_original(const ggml_tensor* copy) {
    const char* first = std::strchr(copy->name, '#');
    const char* last = std::strrchr(copy->name, '#');
    if (first == nullptr || copy->op != GGML_OP_NONE || copy->view_src != nullptr) {
        return "";
    }
    if (first == last) {  // the end did not fit
        fail(HW_ERROR_UNSUPPORTED, "the name of a device is too long: '%s'", copy->name);
    }
    return std::string(first + 1, last);
}

bool is_alike(const ggml_tensor* a, const ggml_tensor* b) {
    return a->type == b->type && std::memcmp(a->ne, b->ne, sizeof(a->ne)) == 0;
}

ggml_tensor* find_original(const ggml_tensor* copy, const std::string& name, const ByName& tensors,
                           ggml_cgraph* graph) {
    ggml_tensor* found = nullptr;
    const auto [begin, end] = tensors.equal_range(name);
    for (auto at = begin; at != end; ++at) {
        if (is_alike(at->second, copy) && at->second != found) {
            if (found != nullptr) {
                fail(HW_ERROR_UNSUPPORTED, "two tensors of its graph are named '%s', and devices exchange one of them",
                     name.c_str());
            }
            found = at->second;
        }
    }
    found = found != nullptr ? found : ggml_graph_get_tensor(graph, name.c_str());  // a leaf: an input
    if (found == nullptr || !is_alike(found, copy)) {
        fail(HW_ERROR_UNSUPPORTED, "devices exchange '%s', which its graph does not have", name.c_str());
    }
    return found;
}

}  // namespace

void remove_split_copies(ggml_cgraph* graph, const llama_model* model) {
    ByName tensors;
    for (const auto& [name, tensor] : llama_internal_get_tensor_map(model)) {
        tensors.emplace(name, tensor);
    }
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        ggml_tensor* node = ggml_graph_node(graph, i);
        tensors.emplace(node->name, node);
        for (ggml_tensor*& source : node->src) {
            const std::string name = source != nullptr ? name_of_original(source) : "";
            if (!name.empty()) {
                source = find_original(source, name, tensors, graph);
            }
        }
    }
}

}  // namespace hw
