// What each kind of node of a graph takes, on any device: ggml's scheduler computes the nodes one by one, and waits for
// the device after each. So a pass takes longer while it is timed, and nodes that a backend computes as one are not.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "ggml-backend.h"

namespace hw {

class NodeTimes {
  public:
    ggml_status compute(ggml_backend_sched_t scheduler, ggml_cgraph* graph);
    // The longest first.
    std::vector<hw_node_time> rows() const;

  private:
    struct Sum {
        int64_t count = 0;
        int64_t us = 0;
    };

    static bool on_node(ggml_tensor* node, bool is_question, void* data);

    std::map<std::string, Sum> sums_;
    int64_t since_us_ = 0;
};

}  // namespace hw
