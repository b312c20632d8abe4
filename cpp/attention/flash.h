// Concurrent attention by ggml's flash attention, for layers on any device: one operation a group of views,
// over a run of cells that holds every block as they see it (attention/flash-plan.h), after two or three for the pass
// that make the mirrors among them. A graph serves every pass with the same runs of cells.
#pragma once

#include <map>

#include "attention/attention.h"
#include "attention/mask.h"
#include "cache/cell-moves.h"
#include "graph/graph-inputs.h"

namespace hw {

class FlashAttention : public Attention {
  public:
    // Of a pass with a flash plan, in n_rows. scratch: where rows that fill up are copied to.
    FlashAttention(const Pass& pass, int32_t n_rows, const ScratchCells& scratch);
    ggml_tensor* build(const SiteInputs& site) override;
    bool serves(const Pass& pass) const override;
    int64_t n_scores(const Pass& pass) const override;
    void set_inputs(const Pass& pass, int n_pos_per_token) override;

    // Whether the device of every layer computes it: kernels know some head sizes only.
    static bool is_supported(const ModelSpec& model, const KvStore& store);

  private:
    // Cells that are copied to others.
    struct Copies {
        int64_t n;  // rounded up, so that graphs serve again
        CellsInput from;
        ggml_tensor* to = nullptr;  // I64 [n]

        void fill(std::vector<int32_t> from_cells, std::vector<int64_t> to_cells, const ScratchCells& scratch) const;
    };
    ggml_tensor* copied(const SiteInputs& in, ggml_tensor* stored);
    ggml_tensor* turned(const SiteInputs& in);
    const KvTensors& with_mirrors(const SiteInputs& in);
    void set_copies(const Pass& pass, int n_pos_per_token) const;

    int32_t n_rows_;
    std::vector<FlashRun> runs_;  // of each group
    std::vector<int32_t> group_rows_;
    ScratchCells scratch_;
    Copies keys_;                        // those that are turned on
    Copies values_;                      // and keys that no position turns
    ggml_tensor* turns_ = nullptr;       // I32 [keys * n_pos_per_token]
    std::map<int, KvTensors> mirrored_;  // by layer: the results of copying, so that reading depends on it
    std::vector<AttentionMasks> masks_;  // of each group
};

}  // namespace hw
