// What views want of a pass that was computed: logits, log-probabilities of given tokens, sampled tokens and how likely
// these and others were.
#pragma once

#include <vector>

#include "base/thread-pool.h"
#include "ggml-backend.h"
#include "hogwild.h"

namespace hw {

// Throws HW_ERROR_ARGUMENT where the outputs of a view do not fit together.
void check_outputs(const hw_view& view, int32_t index, int32_t n_vocab);

class Outputs {
  public:
    // logits: F32 [n_vocab, O], those of all views one after another. Read where they lie if that is host memory.
    Outputs(const hw_view* views, int32_t n_views, const ggml_tensor& logits);
    // Logits and log-probabilities. All that needs memory was done before.
    void write() const;
    // A sampler that can choose no token leaves -1. Nothing else can fail.
    void sample(ThreadPool* pool) const;

  private:
    void sample(int i) const;
    const float* row(int64_t index) const { return rows_ + index * n_vocab_; }

    std::vector<const hw_view*> views_;  // those with outputs
    std::vector<int64_t> first_;         // of each: its first row
    std::vector<size_t> sampled_;        // those of them that have a sampler
    int64_t n_vocab_;
    std::vector<float> copy_;  // of logits in the memory of a device
    const float* rows_;        // [O, n_vocab]
};

}  // namespace hw
