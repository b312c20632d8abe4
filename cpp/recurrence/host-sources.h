// What our kernel reads of a layer on a device, in the CPU's memory: the numbers of tokens in one copy a pass, where
// ggml's scheduler would make one of each source, and wait for each; weights once and for all.
//
//   on the device    q [d, H, T]   k [d, H, T]  ..  -> side by side for each token [numbers, T]
//   on the CPU       a copy of that -> q, k, .. as views of it
#pragma once

#include <vector>

#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "kernel/recurrence.h"

namespace hw {

// Which dimension of a source (RecurrenceSite::sources) goes over tokens; -1: none, it is a weight.
int token_dim(const RecurrenceShape& shape, const std::vector<ggml_tensor*>& sources, size_t i);

class HostSources {
  public:
    // Throws HW_ERROR_MEMORY.
    std::vector<ggml_tensor*> of(ggml_context* ctx, const RecurrenceShape& shape, std::vector<ggml_tensor*> sources);
    // Nodes of graphs that belong to the CPU: all before them is the device's.
    const std::vector<ggml_tensor*>& nodes() const { return nodes_; }

  private:
    ggml_tensor* weight_here(const ggml_tensor* weight);

    struct Weight {
        ggml_context_ptr ctx;
        ggml_backend_buffer_ptr buffer;
    };
    std::vector<Weight> weights_;
    std::vector<ggml_tensor*> nodes_;
};

}  // namespace hw
