// What changes a model without changing its weights: LoRA adapters and control vectors. llama.cpp adds their nodes to
// the graphs of a context that they are applied to, and so they come along when such a graph is copied.
#pragma once

#include <string>
#include <vector>

#include "hogwild.h"
#include "llama-cpp.h"

namespace hw {

class GgufFile;

class Adapters {
  public:
    Adapters() = default;
    // The model must outlive this object. Throws HW_ERROR_ARGUMENT, HW_ERROR_MODEL, HW_ERROR_UNSUPPORTED.
    Adapters(llama_model* model, const hw_model_params& params);
    // Throws HW_ERROR_MEMORY.
    void apply(llama_context* context) const;
    // What tells them from others; "none" where nothing is changed.
    std::string digest() const;

  private:
    void load_lora(llama_model* model, const hw_lora& lora, const std::vector<GgufFile>& model_files);
    void load_control(const llama_model* model, const hw_control_vector& control);

    std::vector<llama_adapter_lora_ptr> loras_;
    std::vector<float> scales_;
    std::vector<std::string> digests_;  // of the files of LoRA adapters
    std::vector<float> directions_;     // [n_layer - 1][n_embd], for the layers from 1 on: the sum of all; empty: none
    int32_t n_embd_ = 0;
};

}  // namespace hw
