// Concurrent attention by ggml's flash attention, for layers on any device: one operation a group of views,
// over a run of cells that holds every block as they see it (attention/flash-plan.h), after two or three for the pass
// that make the mirrors among them. A graph serves every pass with the same runs of cells.
#pragma once

#include <map>

#include "attention/attention.h"
#include "attention/mask.h"
#include "graph/graph-inputs.h"

namespace hw {

class FlashAttention : public Attention {
  public:
    // Of a pass with a flash plan, in n_rows. spare_cell: a cell in no block.
    FlashAttention(const Pass& pass, int32_t n_rows, int64_t spare_cell);
    ggml_tensor* build(const SiteInputs& site) override;
    bool serves(const Pass& pass) const override;
    int64_t n_scores(const Pass& pass) const override;
    void set_inputs(const Pass& pass, int n_pos_per_token) override;

    // Whether the device of every layer computes it: kernels know some head sizes only.
    static bool is_supported(const ModelSpec& model, const KvStore& store);

  private:
    void make_inputs(const SiteInputs& in);
    const KvTensors& with_mirrors(const SiteInputs& in);

    int32_t n_rows_;
    std::vector<FlashRun> runs_;  // of each group
    std::vector<int32_t> group_rows_;
    int64_t n_mirrored_;  // rounded up
    int64_t spare_cell_;
    CellsInput from_;                    // cells to copy
    ggml_tensor* to_ = nullptr;          // I64 [n_mirrored]: where to
    ggml_tensor* turns_ = nullptr;       // I32 [n_mirrored * n_pos_per_token]
    std::map<int, KvTensors> mirrored_;  // by layer: the results of copying, so that reading depends on it
    std::vector<AttentionMasks> masks_;  // of each group
};

}  // namespace hw
