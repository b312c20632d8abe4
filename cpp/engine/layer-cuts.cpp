#include "engine/layer-cuts.h"

#include <map>
#include <unordered_map>

#include "base/error.h"

namespace hw {

namespace {

// One computation of a graph.
class Cutting {
  public:
    Cutting(const std::vector<StoreNode>& stores, LayerHook* hook) : hook_(hook) {
        for (const StoreNode& store : stores) {
            if (store.is_late) {
                fail(HW_ERROR_UNSUPPORTED,
                     "layer %d of this model stores keys after it has attended: its passes cannot be cut", store.layer);
            }
            layer_of_[store.node] = store.layer;
            n_left_[store.layer]++;
        }
    }

    // ggml's callback: asked once for each node, and told of those that were asked for. It counts, because a backend
    // may compute the stores of a layer in another order.
    static bool on_node(ggml_tensor* node, bool is_question, void* data) {
        Cutting& self = *static_cast<Cutting*>(data);
        const auto found = self.layer_of_.find(node);
        if (found == self.layer_of_.end()) {
            return false;
        }
        if (is_question) {
            return --self.n_left_.at(found->second) == 0;
        }
        self.hook_->stored(found->second);
        return true;
    }

  private:
    LayerHook* hook_;
    std::unordered_map<const ggml_tensor*, int> layer_of_;
    std::map<int, int> n_left_;  // stores of a layer that were not asked for yet
};

// The scheduler without a callback again, and without work on any backend.
class CallbackScope {
  public:
    CallbackScope(ggml_backend_sched_t scheduler, Cutting* cutting) : scheduler_(scheduler) {
        ggml_backend_sched_set_eval_callback(scheduler_, Cutting::on_node, cutting);
    }
    CallbackScope(const CallbackScope&) = delete;
    CallbackScope& operator=(const CallbackScope&) = delete;
    ~CallbackScope() {
        ggml_backend_sched_synchronize(scheduler_);
        ggml_backend_sched_set_eval_callback(scheduler_, nullptr, nullptr);
    }

  private:
    ggml_backend_sched_t scheduler_;
};

}  // namespace

// What the hook throws passes through the scheduler, which is C++ and holds nothing then. To answer false would end no
// more than the nodes of one device: the others would go on with what was never computed, and ggml ends the process
// over an expert or a row that does not exist.
ggml_status LayerCuts::compute(ggml_backend_sched_t scheduler, ggml_cgraph* graph, LayerHook* hook) const {
    Cutting cutting(stores_, hook);
    const CallbackScope scope(scheduler, &cutting);
    return ggml_backend_sched_graph_compute(scheduler, graph);
}

}  // namespace hw
