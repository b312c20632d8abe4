// Making and filling the input tensors of a graph. An input that no node reads has no memory, and is passed over.
#pragma once

#include <cstdint>
#include <vector>

#include "ggml-backend.h"

namespace hw {

inline ggml_tensor* new_input(ggml_context* ctx, ggml_type type, int64_t n, const char* name) {
    ggml_tensor* tensor = ggml_new_tensor_1d(ctx, type, n);
    ggml_set_name(tensor, name);
    ggml_set_input(tensor);
    return tensor;
}

template <typename T>
void set_input(ggml_tensor* tensor, const std::vector<T>& values) {
    if (tensor->buffer != nullptr) {
        ggml_backend_tensor_set(tensor, values.data(), 0, values.size() * sizeof(T));
    }
}

// Positions as ROPE reads them: one row, or four rows for M-RoPE, where text has the same position in the first three.
inline void set_positions(ggml_tensor* tensor, const std::vector<int32_t>& positions, int n_pos_per_token) {
    std::vector<int32_t> rows;
    for (int row = 0; row < n_pos_per_token; row++) {
        if (row < 3) {
            rows.insert(rows.end(), positions.begin(), positions.end());
        } else {
            rows.insert(rows.end(), positions.size(), 0);
        }
    }
    set_input(tensor, rows);
}

}  // namespace hw
