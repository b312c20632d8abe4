// What a pass of so many rows costs on the CPU, by the weights that it is multiplied with.
//
// ggml's CPU backend repacks some types of weights, and multiplies those with four rows at once, or row by row: a pass
// of 3 rows can cost more than one of 4, and so can one of 2. The costs stand in a table of what was measured. No clock
// is asked: the same weights on the same kind of CPU always cost the same, or a seed would not repeat a run.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "ggml-backend.h"
#include "hogwild.h"

namespace hw {

class PassCost {
  public:
    // Of a graph of llama.cpp: the weights of its products that lie in this machine's memory.
    explicit PassCost(ggml_cgraph* graph);
    PassCost(std::vector<hw_weight_share> weights, bool has_avx512)
        : weights_(std::move(weights)), has_avx512_(has_avx512) {}

    // Of a pass of n rows, in bytes that would take as long to read; 0: no weight is in this machine's memory.
    double of(int32_t n) const;
    const std::vector<hw_weight_share>& weights() const { return weights_; }

  private:
    std::vector<hw_weight_share> weights_;
    bool has_avx512_;
};

}  // namespace hw
