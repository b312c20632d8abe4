// Looking at single tensors of llama.cpp's graph.
#pragma once

#include "ggml.h"

namespace hw {

// The leaf that a view is a view of, itself if it is none.
const ggml_tensor* root_of(const ggml_tensor* tensor);
// N where a leaf is named prefix + N, else -1.
int cache_layer(const ggml_tensor* leaf, const char* prefix);
bool is_kv_leaf(const ggml_tensor* leaf);
bool is_weight(const ggml_tensor* leaf);
bool has_name(const ggml_tensor* tensor, const char* name);
// Whether a node is another look at the memory of its source.
bool is_view(const ggml_tensor* node);
// Whether a node only gives its source another shape, or order in memory: no number is changed or left out.
bool is_reshape(const ggml_tensor* node);
// Whether a node writes its result over one of its sources.
bool is_in_place(const ggml_tensor* node);
float float_param(const ggml_tensor* node, int index);
[[noreturn]] void unsupported(const ggml_tensor* node, const char* why);

}  // namespace hw
