// What must be the same for the cells of one cache to be of use in another, each by its name.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cache/kv-store.h"
#include "model/model.h"

namespace hw {

// (name, value): "type_k", "q8_0". Values hold no line feeds.
using Fingerprint = std::vector<std::pair<std::string, std::string>>;

// How keys are rotated, of all layers, as a digest.
std::string rope_digest(const std::map<int, LayerSpec>& layers);

// Reads some of the model's files. Throws HW_ERROR_MODEL if they are gone or changed.
Fingerprint fingerprint(const Model& model, ggml_type type_k, ggml_type type_v, const std::string& rope);

// "name=value" a line.
std::string text_of(const Fingerprint& fingerprint);

// Throws HW_ERROR_ARGUMENT with the name of the first value that is another in the text of a fingerprint.
void check_same(const std::string& theirs, const Fingerprint& ours);

}  // namespace hw
