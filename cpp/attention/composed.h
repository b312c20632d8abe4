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
    // Of a pass in n_rows.
    ComposedAttention(const Pass& pass, int32_t n_rows, int64_t n_cells);
    ggml_tensor* build(const SiteInputs& site) override;

    bool serves(const Pass& pass) const override;
    int64_t n_scores(const Pass& pass) const override;
    void set_inputs(const Pass& pass, int n_pos_per_token) override;

  private:
    std::vector<PassBlock> padded(const Pass& pass) const;
    // A group: rows side by side that see some blocks side by side, and no other.
    struct Group {
        int32_t first_row;
        int32_t n_rows;
        int32_t first_block;
        int32_t n_blocks;
        int64_t n_keys;  // sum of the lengths of its blocks

        bool operator==(const Group& other) const {
            return first_row == other.first_row && n_rows == other.n_rows && n_blocks == other.n_blocks;
        }
    };
    std::vector<Group> groups_of(const Pass& pass) const;
    ggml_tensor* query(const SiteInputs& in, size_t slot);
    ggml_tensor* attend(const SiteInputs& in, size_t group);
    ggml_tensor* scores(const SiteInputs& in, size_t group);
    void add_first_keys(const Pass& pass, size_t group, std::vector<int64_t>* first_key) const;
    ggml_tensor* cells_in(ggml_context* ctx, ggml_tensor* store, size_t block);

    int32_t n_rows_;
    int64_t n_cells_;
    std::vector<PassBlock> blocks_;  // as in the graph: lengths rounded up
    std::vector<Group> groups_;
    std::vector<ggml_tensor*> distances_;  // a slot (the n-th block of each group): I32 [T * n_pos_per_token]
    std::vector<ggml_tensor*> queries_;    // of the site that is being built, a slot: F32 [d_k, T, H]
    std::vector<CellsInput> gathered_;     // a block: its cells, where they are quantized
    std::vector<AttentionMasks> masks_;    // of each group
    bool has_gains_ = false;               // queries have their position in the view already, see graph/query.h
};

}  // namespace hw
