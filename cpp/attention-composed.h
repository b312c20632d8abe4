// Concurrent attention composed of stock ggml operations: runs on any backend, and says in a few lines what the fused
// kernel computes. The blocks are part of the graph, so it serves one arrangement of blocks; their lengths are rounded
// up (the rest is masked), so that it serves several passes.
#pragma once

#include "pass.h"
#include "rewire.h"

namespace hw {

class ComposedAttention : public Attention {
  public:
    ComposedAttention(const Pass& pass, int64_t n_cells);
    ggml_tensor* build(Rewire& rewire, const AttentionSite& site, const KvTensors& stored) override;

    // Whether this graph can compute the pass.
    bool serves(const Pass& pass) const;
    // To be called when the graph is allocated.
    void set_inputs(const Pass& pass, int n_pos_per_token) const;

  private:
    struct Mask {
        Window window;
        bool has_alibi;
        ggml_tensor* tensor;  // F16 [sum of the lengths, T]: 0, -inf, or minus the distance for ALiBi
    };
    std::vector<PassBlock> padded(const Pass& pass) const;
    void make_distances(Rewire& rewire, int64_t n_tokens);
    ggml_tensor* mask_for(Rewire& rewire, const AttentionSite& site);
    void set_mask(const Pass& pass, const Mask& mask) const;
    ggml_tensor* flash(Rewire& rewire, const AttentionSite& site, const KvTensors& stored);
    ggml_tensor* scores(Rewire& rewire, const AttentionSite& site, const KvTensors& stored);
    ggml_tensor* weigh_values(ggml_context* ctx, ggml_tensor* weights, ggml_tensor* v) const;

    int64_t n_cells_;
    std::vector<PassBlock> blocks_;        // as in the graph: lengths rounded up
    std::vector<ggml_tensor*> distances_;  // a block: I32 [T * n_pos_per_token]
    std::vector<Mask> masks_;
    bool has_gains_ = false;  // queries have their position in the view already, see Rewire::rotated_query
};

}  // namespace hw
