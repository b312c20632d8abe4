// Making and filling the input tensors of a graph. An input that no node reads has no memory, and is passed over.
#pragma once

#include <cstdint>
#include <map>
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

// Numbers of n cells for ggml_get_rows, which gives them as F32 [d, n, Hkv], side by side, whatever their type: few
// backends copy quantized rows that lie apart, but all gather them. It wants the numbers once a head; one tensor serves
// all layers with as many heads, because each is copied to the device in every pass.
class CellsInput {
  public:
    ggml_tensor* of(ggml_context* ctx, int64_t n, int64_t n_head_kv) {
        ggml_tensor*& tensor = by_heads_[n_head_kv];
        if (tensor == nullptr) {
            tensor = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, n, n_head_kv);
            ggml_set_name(tensor, "cell_numbers");
            ggml_set_input(tensor);
        }
        return tensor;
    }

    void set(const std::vector<int32_t>& cells) const {
        for (const auto& [n_head_kv, tensor] : by_heads_) {
            std::vector<int32_t> by_head;
            for (int64_t head = 0; head < n_head_kv; head++) {
                by_head.insert(by_head.end(), cells.begin(), cells.end());
            }
            set_input(tensor, by_head);
        }
    }

    bool is_used() const { return !by_heads_.empty(); }

  private:
    std::map<int64_t, ggml_tensor*> by_heads_;  // I32 [n, Hkv]
};

}  // namespace hw
