// The masks of a group's attention over stored keys: who sees which key, and for ALiBi how far away it is.
#pragma once

#include <vector>

#include "cache/pass.h"
#include "model/layer-spec.h"

namespace hw {

class AttentionMasks {
  public:
    // One mask serves all sites with the same window.
    ggml_tensor* of(ggml_context* ctx, const Window& window, bool has_alibi, int64_t n_keys, int64_t n_rows);
    // first_key: [pairs of the pass] where key 0 of the pair's block stands among the n_keys. To be called when the
    // graph is allocated.
    void set_inputs(const Pass& pass, const PassGroup& group, const std::vector<int64_t>& first_key) const;

  private:
    struct Mask {
        Window window;
        bool has_alibi;
        ggml_tensor* tensor;  // F16 [n_keys, rows of the group]: 0, -inf, or minus the distance for ALiBi
    };
    static void set_input(const Pass& pass, const PassGroup& group, const std::vector<int64_t>& first_key,
                          const Mask& mask);

    std::vector<Mask> masks_;
};

}  // namespace hw
