// Concurrent attention by ggml's flash attention, for layers on any device: one operation over a run of cells that
// holds every block as the views see it (attention/flash-plan.h), after two or three that make the mirrors among them.
// A graph serves every pass with the same run of cells.
#pragma once

#include <map>

#include "attention/attention.h"
#include "attention/mask.h"
#include "graph/graph-inputs.h"

namespace hw {

class FlashAttention : public Attention {
  public:
    // spare_cell: a cell in no block.
    FlashAttention(const FlashPlan& plan, int32_t n_tokens, int64_t spare_cell);
    ggml_tensor* build(const SiteInputs& site) override;
    bool serves(const Pass& pass) const override;
    void set_inputs(const Pass& pass, int n_pos_per_token) override;

    // Whether the device of every layer computes it: kernels know some head sizes only.
    static bool is_supported(const ModelSpec& model, const KvStore& store);

  private:
    void make_inputs(const SiteInputs& in);
    const KvTensors& with_mirrors(const SiteInputs& in);

    int64_t begin_;  // the run: cells [begin, begin + n_cells)
    int64_t n_cells_;
    int64_t n_mirrored_;  // rounded up
    int32_t n_tokens_;
    int64_t spare_cell_;
    CellsInput from_;                    // cells to copy
    ggml_tensor* to_ = nullptr;          // I64 [n_mirrored]: where to
    ggml_tensor* turns_ = nullptr;       // I32 [n_mirrored * n_pos_per_token]
    std::map<int, KvTensors> mirrored_;  // by layer: the results of copying, so that reading depends on it
    AttentionMasks masks_;
};

}  // namespace hw
