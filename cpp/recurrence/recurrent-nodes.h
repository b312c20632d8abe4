// Recurrent layers by our CPU kernel, as one custom node each. Which tokens go to which map, and what stands before
// them, is data (the plan of a pass): a graph serves every pass of its size. States lie in host memory, wherever the
// layer lies: what it reads and computes is copied then, a few numbers a token.
//
// Prompts, of which these would be many, are computed where the layer lies (recurrence/composed-states.h), if that is a
// device which has the operation.
#pragma once

#include <memory>
#include <vector>

#include "ggml.h"
#include "graph/recurrence-sites.h"
#include "recurrence/composed-states.h"
#include "recurrence/host-sources.h"

namespace hw {

class RecurrentNodes {
  public:
    // recurrences: of the model; they must outlive this object. For graphs of n_tokens rows, of passes like `plan`.
    // composes_all: states also where a layer lies in this machine's memory.
    RecurrentNodes(const std::vector<Recurrence>& recurrences, int32_t n_tokens, int32_t n_threads,
                   const RecurrentPlan& plan, bool composes_all);

    // sources: copies of RecurrenceSite::sources -> the result that takes the place of the site's node, without the new
    // state: [channels, T], or [d_v * H, T].
    ggml_tensor* build(ggml_context* ctx, const RecurrenceSite& site, const std::vector<ggml_tensor*>& sources);
    bool serves(const RecurrentPlan& plan) const { return !may_compose_ || states_.serves(plan); }
    // What the nodes compute from now on. Rows of no token are 0.
    void set_plan(const RecurrentPlan* plan);
    // Those that belong to a device, and the states that they make.
    const ComposedStates& states() const { return states_; }
    // And those that belong to the CPU, beside our own.
    const std::vector<ggml_tensor*>& nodes_here() const { return host_.nodes(); }

  private:
    struct Node {
        const RecurrentNodes* all;
        const Recurrence* recurrence;
        const RecurrentPlan* const* plan;
    };
    static void run(ggml_tensor* dst, int ith, int nth, void* node);
    ggml_tensor* build_kernel(ggml_context* ctx, const Recurrence& recurrence, std::vector<ggml_tensor*> sources,
                              int32_t n_tokens, const RecurrentPlan* const* plan);

    const std::vector<Recurrence>& recurrences_;
    int32_t n_tokens_;
    bool composes_all_;
    bool may_compose_ = false;  // some recurrence
    const RecurrentPlan* plan_ = nullptr;
    RecurrentPlan rest_;  // of it, without states
    const RecurrentPlan* const rest_plan_ = &rest_;
    ComposedStates states_;
    HostSources host_;
    std::vector<std::vector<float>> scratch_;  // of each thread
    std::vector<std::unique_ptr<Node>> nodes_;
};

}  // namespace hw
