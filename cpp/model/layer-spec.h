// What a model's layers store and attend to, by value. It is read off llama.cpp's graph once a model
// (graph/model-spec.h); what stores, moves and attends goes by this, and knows no graph.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "ggml-backend.h"
#include "kernel/recurrence.h"

namespace hw {

// What a ROPE node does to its data.
struct RopeParams {
    std::array<int32_t, GGML_MAX_OP_PARAMS / sizeof(int32_t)> values = {};  // as ggml_rope_ext fills them
    ggml_tensor* factors = nullptr;  // F32 [n_dims / 2], of the frequencies: a weight, or NULL

    int32_t n_dims() const { return values[1]; }
    int32_t mode() const { return values[2]; }
    int32_t offset() const { return values[15]; }  // the first dimension that is rotated
    void set_offset(int64_t offset) { values[15] = static_cast<int32_t>(offset); }
    bool operator==(const RopeParams& other) const { return values == other.values && factors == other.factors; }
};

// What a query sees of the keys before it.
//
//   positions   0   1   2   3 | 4   5   6   7 | 8        n = 4
//   last n                    [ .   .   . query]
//   chunked                   | .   .   . query|        query at 7: the same; at 6: last n from 3, chunked from 4
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

// What a layer stores of a token, and who sees it.
struct LayerSpec {
    int64_t d_k = 0;  // size of a key of one head
    int64_t d_v = 0;
    int64_t n_head_kv = 0;
    ggml_backend_buffer_type_t buffer_type = nullptr;  // of llama.cpp's own cache
    bool is_v_in_k = false;                            // MLA: values are the first d_v numbers of the keys
    // Turns a stored key on by some positions: the rotation that it has, without its magnitude. nullopt: keys are not
    // rotated, and are the same everywhere.
    std::optional<RopeParams> key_rope;
    // Keys may be multiplied after their rotation (the weights of a norm), which would make them depend on more than
    // distances. So that is left out, and the weights go to the queries: see graph/query.h. F32 [d_k]; NULL: none.
    ggml_tensor* key_gain = nullptr;
    Window window;

    // Layers with a window have cells of their own, in the second space; the first one may have no layers.
    size_t space() const { return window.n > 0 ? 1 : 0; }
};

// One attention over the keys of a layer; a few models have several that share them.
struct AttentionSpec {
    int layer = -1;
    int64_t n_head = 0;
    float scale = 0.0f;
    float max_bias = 0.0f;  // ALiBi; 0: none
    float soft_cap = 0.0f;  // 0: none
    bool has_sinks = false;
};

// Queries may be scaled by log(floor((position + offset) / length) + 1) * factor + 1.
struct QueryTemperature {
    float factor = 0.0f;
    float length = 1.0f;
    float offset = 0.0f;
};

struct ModelSpec {
    std::map<int, LayerSpec> layers;
    std::vector<AttentionSpec> attentions;  // in the order of the graph
    std::vector<Recurrence> recurrences;    // likewise; their states are beside keys and values
    int n_pos_per_token = 1;                // rows of positions: 4 for M-RoPE
    QueryTemperature temperature;
    int64_t n_positions = 0;  // rows of the table of learned positions: a view has no more tokens. 0: no such table

    // Of each space: what its layers see. A model has one kind of window.
    std::vector<Window> windows() const {
        std::vector<Window> windows = {Window{}};
        for (const auto& entry : layers) {
            if (entry.second.space() == windows.size()) {
                windows.push_back(entry.second.window);
            }
        }
        return windows;
    }
};

}  // namespace hw
