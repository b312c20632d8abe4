// Where a graph runs on several devices, ggml's scheduler replaces what a node reads from another device by a copy of
// it, in the graph itself. To read a graph as the model means it, the copies are taken out again, but for those of
// masks.
#pragma once

#include "llama.h"

namespace hw {

// Throws HW_ERROR_UNSUPPORTED where it is not clear what a copy is a copy of.
void remove_split_copies(ggml_cgraph* graph, const llama_model* model);

}  // namespace hw
