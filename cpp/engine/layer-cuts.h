// Where a graph can be cut at each layer: its keys and values are stored, and nothing of it was attended to yet.
//
// ggml's scheduler asks a callback which nodes it wants to see, computes the nodes up to such a one as a graph of their
// own, waits for the device, and calls again. So a cut costs one such wait, and passes without a hook pay nothing.
#pragma once

#include <vector>

#include "graph/rewire.h"

namespace hw {

class LayerHook {
  public:
    virtual ~LayerHook() = default;
    // What it throws ends the graph there.
    virtual void stored(int layer) = 0;
};

class LayerCuts {
  public:
    LayerCuts() = default;
    explicit LayerCuts(std::vector<StoreNode> stores) : stores_(std::move(stores)) {}
    // Computes the graph, and calls the hook once a layer. Throws HW_ERROR_UNSUPPORTED, and what the hook throws; no
    // backend computes any more then.
    ggml_status compute(ggml_backend_sched_t scheduler, ggml_cgraph* graph, LayerHook* hook) const;

  private:
    std::vector<StoreNode> stores_;
};

}  // namespace hw
