// Which layers of a model attend to a window of the last tokens only, and what the window is. llama.cpp knows, but
// tells the size alone; the rest is observed, never concluded from a model's name.
#pragma once

#include <cstdint>
#include <set>

#include "model/model.h"

namespace hw {

// What a query sees of the keys before it.
struct Window {
    int32_t n = 0;            // 0: all of them
    bool is_chunked = false;  // the keys of its own chunk of n positions, instead of the last n

    bool operator==(const Window& other) const { return n == other.n && is_chunked == other.is_chunked; }
    // The first key of a block that a query at this position of its view sees, at this distance from the block's begin.
    int32_t first_visible(int32_t position, int32_t distance) const {
        if (n == 0) {
            return 0;
        }
        const int32_t first_position = is_chunked ? position / n * n : position - n + 1;
        const int32_t begin = position - distance;  // of the block, in the view
        return first_position > begin ? first_position - begin : 0;
    }
};

struct SlidingWindow {
    Window window;
    std::set<int> layers;

    Window of(int layer) const { return layers.count(layer) != 0 ? window : Window{}; }
};

// Throws HW_ERROR_UNSUPPORTED if it cannot be observed.
SlidingWindow observe_sliding_window(const Model& model);

}  // namespace hw
