#include "engine/fingerprint.h"

#include "base/digest.h"
#include "base/error.h"

namespace hw {

std::string rope_digest(const std::map<int, LayerSpec>& layers) {
    Digest digest;
    for (const auto& [index, layer] : layers) {
        digest.add_number(index);
        if (layer.key_rope) {
            digest.add(layer.key_rope->values.data(), sizeof(layer.key_rope->values));
            digest.add(layer.key_rope->factors != nullptr ? layer.key_rope->factors->name : "");
        }
    }
    return digest.text();
}

Fingerprint fingerprint(const Model& model, ggml_type type_k, ggml_type type_v, const std::string& rope) {
    return {{"architecture", model.architecture()},  {"weights", model.files().digest()},
            {"adapters", model.adapters().digest()}, {"type_k", ggml_type_name(type_k)},
            {"type_v", ggml_type_name(type_v)},      {"rope", rope}};
}

std::string text_of(const Fingerprint& fingerprint) {
    std::string text;
    for (const auto& [name, value] : fingerprint) {
        text += name + "=" + value + "\n";
    }
    return text;
}

void check_same(const std::string& theirs, const Fingerprint& ours) {
    size_t at = 0;
    for (const auto& [name, value] : ours) {
        const size_t end = theirs.find('\n', at);
        const std::string line = theirs.substr(at, end == std::string::npos ? end : end - at);
        if (line.compare(0, name.size() + 1, name + "=") != 0) {
            fail(HW_ERROR_ARGUMENT, "these are no data of a block: its '%s' is missing", name.c_str());
        }
        if (line.substr(name.size() + 1) != value) {
            fail(HW_ERROR_ARGUMENT, "this block was made with %s %.64s, this cache has %s", name.c_str(),
                 line.c_str() + name.size() + 1, value.c_str());
        }
        at = end == std::string::npos ? theirs.size() : end + 1;
    }
    if (at != theirs.size()) {
        fail(HW_ERROR_ARGUMENT, "these are no data of a block: its fingerprint has more than is known");
    }
}

}  // namespace hw
