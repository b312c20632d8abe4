// What is asked of every form of attention.
#pragma once

#include "cache/pass.h"
#include "graph/rewire.h"

namespace hw {

// Builds the attention of a graph's sites, and fills what it is fed.
class Attention {
  public:
    virtual ~Attention() = default;
    // The result that takes the place of site.node: F32 [d_v, H, T], contiguous.
    virtual ggml_tensor* build(const SiteInputs& site) = 0;
    // Whether what it built can compute the pass.
    virtual bool serves(const Pass& pass) const = 0;
    // How many scores it computes in a layer for a pass that it serves: one for each query row and cell, whether seen
    // or masked.
    virtual int64_t n_scores(const Pass& pass) const = 0;
    // Fills what it reads. To be called when the graph is allocated.
    virtual void set_inputs(const Pass& pass, int n_pos_per_token) = 0;
};

}  // namespace hw
