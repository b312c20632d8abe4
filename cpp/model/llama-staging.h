// Functions that libllama exports but whose header (llama.cpp's src/llama-ext.h, a staging header) is not installed.
// Declared here as they stand in the pinned version; the import check of the Python side guards that version.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "llama.h"

// Builds the graph of ctx's model for n_tokens tokens of n_seqs sequences, n_outputs of which give logits. Valid until
// the next call.
LLAMA_API ggml_cgraph* llama_graph_reserve(llama_context* ctx, uint32_t n_tokens, uint32_t n_seqs, uint32_t n_outputs);

// All weights by name.
LLAMA_API const std::vector<std::pair<std::string, ggml_tensor*>>& llama_internal_get_tensor_map(
    const llama_model* model);

LLAMA_API int32_t llama_model_n_devices(const llama_model* model);
LLAMA_API ggml_backend_dev_t llama_model_get_device(const llama_model* model, int i);
