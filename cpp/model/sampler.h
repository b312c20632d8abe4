// A worker's own chain of llama.cpp's samplers, run on logits that our graphs made.
#pragma once

#include <mutex>
#include <vector>

#include "model/model.h"

namespace hw {

class Sampler {
  public:
    // Throws HW_ERROR_ARGUMENT.
    Sampler(ModelPtr model, const hw_sampler_params& params);
    void reset();
    // Throws HW_ERROR_ARGUMENT if no token can be chosen.
    int32_t sample(const float* logits);
    int32_t n_vocab() const { return model_->n_vocab(); }

  private:
    void add(llama_sampler* sampler);

    std::mutex mutex_;
    ModelPtr model_;
    llama_sampler_ptr chain_;
    std::vector<llama_token_data> candidates_;  // [n_vocab]
};

}  // namespace hw

// The handle of the C API: views name it.
struct hw_sampler {
    hw::Sampler sampler;
};
