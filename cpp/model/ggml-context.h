// Contexts that hold tensors without their data. ggml ends the process where it cannot have one.
#pragma once

#include "base/memory.h"
#include "ggml-cpp.h"

namespace hw {

// Room for so many tensors, and for one graph of so many nodes (0: none). Throws HW_ERROR_MEMORY.
inline ggml_context_ptr new_context(size_t n_tensors, size_t n_graph_nodes = 0) {
    const size_t n_bytes =
        n_tensors * ggml_tensor_overhead() + (n_graph_nodes > 0 ? ggml_graph_overhead_custom(n_graph_nodes, false) : 0);
    require_memory(n_bytes, "a graph");
    return ggml_context_ptr(ggml_init({n_bytes, nullptr, /*no_alloc=*/true}));
}

}  // namespace hw
