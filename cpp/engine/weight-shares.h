// What a pass reads of a model: the matrices of weights that each token is multiplied with.
#pragma once

#include <vector>

#include "ggml.h"
#include "hogwild.h"

namespace hw {

// Of a graph of llama.cpp, in its order: those that lie in this machine's memory.
std::vector<hw_weight_share> weight_shares(ggml_cgraph* graph);

}  // namespace hw
