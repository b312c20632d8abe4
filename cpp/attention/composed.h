// Concurrent attention composed of stock ggml operations, block by block, as the paper has it: says in a few lines what
// the fused kernel computes. On devices it is the way where flash attention is none: for head sizes that no kernel
// knows, or long blocks that each worker sees elsewhere (attention/flash-plan.h). The blocks are part of the graph, so
// it serves one arrangement of blocks; their lengths are rounded up (the rest is masked), so that it serves several
// passes.
#pragma once

#include "attention/attention.h"
#include "attention/mask.h"
#include "graph/graph-inputs.h"

namespace hw {

class ComposedAttention : public Attention {
  public:
    ComposedAttention(const Pass& pass, int64_t n_cells);
    ggml_tensor* build(const SiteInputs& site) override;

    bool serves(const Pass& pass) const override;
    void set_inputs(const Pass& pass, int n_pos_per_token) override;

  private:
    std::vector<PassBlock> padded(const Pass& pass) const;
    void make_distances(const SiteInputs& in, int64_t n_tokens);
    ggml_tensor* scores(const SiteInputs& in);
    ggml_tensor* cells_in(ggml_context* ctx, ggml_tensor* store, size_t block);

    int64_t n_cells_;
    std::vector<PassBlock> blocks_;        // as in the graph: lengths rounded up
    std::vector<ggml_tensor*> distances_;  // a block: I32 [T * n_pos_per_token]
    std::vector<CellsInput> gathered_;     // a block: its cells, where they are quantized
    AttentionMasks masks_;
    int64_t n_keys_ = 0;      // sum of the lengths
    bool has_gains_ = false;  // queries have their position in the view already, see graph/query.h
};

}  // namespace hw
