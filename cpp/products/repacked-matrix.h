// A matrix of weights of our own in the memory that ggml's CPU backend repacks, as those of a model are. It is what
// ggml's products and ours are compared with, before a layout that an update of ggml has changed could go unnoticed.
#pragma once

#include <cstdint>
#include <vector>

#include "ggml-cpp.h"
#include "kernel/product.h"

namespace hw {

// Weights that were repacked; none: this ggml, or this CPU, has no such memory.
bool is_repacked(const ggml_tensor* weights);

class RepackedMatrix {
  public:
    // rows: quantized, of n_out outputs n_in inputs each. Throws HW_ERROR_UNSUPPORTED where nothing is repacked,
    // HW_ERROR_MEMORY.
    RepackedMatrix(ggml_type type, int64_t n_in, int64_t n_out, const void* rows);

    // x: [n_rows, n_in] -> [n_rows, n_out], by ggml with one thread.
    std::vector<float> multiply(const float* x, int64_t n_rows) const;
    // By a kernel of ours.
    std::vector<float> multiply(const ProductKernel& kernel, const float* x, int64_t n_rows) const;

  private:
    ggml_backend_ptr backend_;
    ggml_context_ptr ctx_;
    ggml_backend_buffer_ptr buffer_;
    ggml_tensor* weights_;  // [n_in, n_out]
};

// Of types that our kernels multiply with.
bool has_kind(ggml_type type);
WeightKind kind_of(ggml_type type);

// Whether ggml lays out weights of a type as our kernels read them, and multiplies as they do. Found once a process.
bool is_layout_known(ggml_type type);

}  // namespace hw
