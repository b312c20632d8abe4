#include "engine/node-times.h"

#include <algorithm>
#include <cstdio>

#include "ggml.h"

namespace hw {

namespace {

// Nothing is computed for them.
bool is_view(const ggml_tensor* node) {
    return node->op == GGML_OP_NONE || node->op == GGML_OP_VIEW || node->op == GGML_OP_RESHAPE ||
           node->op == GGML_OP_PERMUTE || node->op == GGML_OP_TRANSPOSE;
}

// Its operation, and the type and the rows of what it reads: those of different layers are one kind.
std::string kind_of(const ggml_tensor* node) {
    std::string kind = ggml_op_desc(node);
    const ggml_tensor* from = node->src[0];
    if (from != nullptr) {
        kind += std::string(" ") + ggml_type_name(from->type) + " [" + std::to_string(from->ne[0]) + ", " +
                std::to_string(from->ne[1]) + "]";
    }
    return kind;
}

// The scheduler without a callback again.
class CallbackScope {
  public:
    CallbackScope(ggml_backend_sched_t scheduler, ggml_backend_sched_eval_callback callback, void* data)
        : scheduler_(scheduler) {
        ggml_backend_sched_set_eval_callback(scheduler_, callback, data);
    }
    CallbackScope(const CallbackScope&) = delete;
    CallbackScope& operator=(const CallbackScope&) = delete;
    ~CallbackScope() { ggml_backend_sched_set_eval_callback(scheduler_, nullptr, nullptr); }

  private:
    ggml_backend_sched_t scheduler_;
};

}  // namespace

// ggml's callback: asked for each node whether it is to be waited for, and called when it is there. What the scheduler
// does before a node, such as copies from other devices, is the node's.
bool NodeTimes::on_node(ggml_tensor* node, bool is_question, void* data) {
    if (is_question) {
        return !is_view(node);
    }
    NodeTimes& self = *static_cast<NodeTimes*>(data);
    const int64_t now = ggml_time_us();
    Sum& sum = self.sums_[kind_of(node)];
    sum.count++;
    sum.us += now - self.since_us_;
    self.since_us_ = now;
    return true;
}

ggml_status NodeTimes::compute(ggml_backend_sched_t scheduler, ggml_cgraph* graph) {
    const CallbackScope scope(scheduler, on_node, this);
    since_us_ = ggml_time_us();
    return ggml_backend_sched_graph_compute(scheduler, graph);
}

std::vector<hw_node_time> NodeTimes::rows() const {
    std::vector<hw_node_time> rows;
    for (const auto& [kind, sum] : sums_) {
        hw_node_time row = {};
        std::snprintf(row.kind, sizeof row.kind, "%s", kind.c_str());
        row.count = sum.count;
        row.us = sum.us;
        rows.push_back(row);
    }
    std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.us > b.us; });
    return rows;
}

}  // namespace hw
