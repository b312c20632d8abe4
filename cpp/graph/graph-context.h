// Contexts of llama.cpp that are only there to build graphs.
#pragma once

#include "llama-cpp.h"

namespace hw {

llama_context_params graph_context_params(uint32_t n_ctx);
// Throws HW_ERROR_MEMORY, HW_ERROR_UNSUPPORTED.
llama_context_ptr new_graph_context(llama_model* model, const llama_context_params& params);

}  // namespace hw
