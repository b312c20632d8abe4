// A graph of llama.cpp that lasts: the memory of its nodes is llama.cpp's own, and the next graph takes it.
#pragma once

#include "ggml-cpp.h"

namespace hw {

struct KeptGraph {
    ggml_context_ptr ctx;  // holds all of it but what lasts anyway: weights, and cells of llama.cpp's own cache
    ggml_cgraph* graph = nullptr;
};

// Throws HW_ERROR_MEMORY.
KeptGraph keep_graph(ggml_cgraph* graph);

}  // namespace hw
