// Which layers of a model attend to a window of the last tokens only, and what the window is. llama.cpp knows, but
// tells the size alone; the rest is observed, never concluded from a model's name.
#pragma once

#include "model/model.h"

namespace hw {

// Observed once a model. Throws HW_ERROR_UNSUPPORTED if it cannot be, HW_ERROR_MEMORY.
const SlidingWindow& sliding_window_of(const Model& model);

}  // namespace hw
