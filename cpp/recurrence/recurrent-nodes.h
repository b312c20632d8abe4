// Recurrent layers by our CPU kernel, as one custom node each. Which tokens go to which map, and what stands before
// them, is data (the plan of a pass): a graph serves every pass of its size. States lie in host memory, wherever the
// layer lies: what it reads and computes is copied then, a few numbers a token.
#pragma once

#include <memory>
#include <vector>

#include "ggml.h"
#include "graph/recurrence-sites.h"

namespace hw {

class RecurrentNodes {
  public:
    // recurrences: of the model; they must outlive this object. For graphs of n_tokens rows.
    RecurrentNodes(const std::vector<Recurrence>& recurrences, int32_t n_tokens, int32_t n_threads);

    // sources: copies of RecurrenceSite::sources -> the result that takes the place of the site's node, without the new
    // state: [channels, T], or [d_v * H * T].
    ggml_tensor* build(ggml_context* ctx, size_t index, std::vector<ggml_tensor*> sources);
    // What the nodes compute from now on. Rows of no token are 0.
    void set_plan(const RecurrentPlan* plan) { plan_ = plan; }

  private:
    struct Node {
        const RecurrentNodes* all;
        const Recurrence* recurrence;
    };
    static void run(ggml_tensor* dst, int ith, int nth, void* node);

    const std::vector<Recurrence>& recurrences_;
    int32_t n_tokens_;
    const RecurrentPlan* plan_ = nullptr;
    std::vector<std::vector<float>> scratch_;  // of each thread
    std::vector<std::unique_ptr<Node>> nodes_;
};

}  // namespace hw
