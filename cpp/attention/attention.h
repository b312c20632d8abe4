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
    // Fills what it reads. To be called when the graph is allocated.
    virtual void set_inputs(const Pass& pass, int n_pos_per_token) = 0;
};

}  // namespace hw
