#include "graph/graph-context.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/backends.h"
#include "model/llama-staging.h"

namespace hw {

namespace {

// As llama.cpp counts them, for a scheduler of its own.
size_t most_nodes(const llama_model* model) {
    return std::max<size_t>(1024, 8 * llama_internal_get_tensor_map(model).size());
}

}  // namespace

llama_context_params graph_context_params(uint32_t n_ctx) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = n_ctx;
    params.n_batch = n_ctx;
    params.n_ubatch = 32;  // its compute buffers grow when a larger graph is asked for
    params.n_seq_max = 1;
    params.n_outputs_max = 1;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.kv_unified = true;
    params.op_offload = false;  // it is never run, and what its nodes exchange between devices must be found again
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

}  // namespace hw
