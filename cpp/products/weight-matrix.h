// A matrix of weights of our own, where those of a model would lie on the CPU: in the memory that ggml's backend
// repacks, if it repacks their type. It is what ggml's products and ours are compared with, before a layout that an
// update of ggml has changed could go unnoticed.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "ggml-cpp.h"
#include "kernel/product.h"

namespace hw {

// Of a type that our kernels multiply with.
std::optional<WeightKind> kind_of(ggml_type type);

// Whether weights lie in this machine's memory, and not on a device.
bool lies_on_cpu(const ggml_tensor* weights);
// Whether weights of a model lie in memory that ggml's CPU backend has repacked.
bool is_repacked(const ggml_tensor* weights);
// Whether they lie on the CPU in the way that our kernels read their kind.
bool lies_as_read(const ggml_tensor* weights, WeightKind kind);

class WeightMatrix {
  public:
    // rows: quantized, of n_out outputs n_in inputs each. Throws HW_ERROR_UNSUPPORTED where ggml should repack the type
    // and does not, HW_ERROR_MEMORY.
    WeightMatrix(ggml_type type, int64_t n_in, int64_t n_out, const void* rows);

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

// Whether ggml lays out weights of a type as our kernels read them, and multiplies as they do. Found once a process.
bool is_layout_known(ggml_type type);

}  // namespace hw
