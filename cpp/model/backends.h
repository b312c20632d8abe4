// The ggml backends that compute for one cache: the devices that hold the model's weights, accelerators such as BLAS,
// and the CPU, in the order in which the scheduler prefers them.
#pragma once

#include <vector>

#include "ggml-cpp.h"
#include "model/model.h"

namespace hw {

// What ggml's scheduler takes a node, mostly room for copies between devices that is never touched: 2 * 30 tensors.
constexpr size_t n_bytes_of_scheduler = 23 << 10;

class Backends {
  public:
    // Throws HW_ERROR_MEMORY.
    explicit Backends(const Model& model);
    // Threads of all that compute on this machine's cores, from the next graph on.
    void set_n_threads(int32_t n);
    // A scheduler for one graph at a time of up to n_nodes nodes. It must not outlive the backends.
    ggml_backend_sched_ptr new_scheduler(size_t n_nodes);
    // Bytes of host memory that a scheduler allocated for its graph.
    size_t n_host_bytes(ggml_backend_sched_t scheduler) const;
    ggml_backend_t cpu() const { return all_.back(); }
    bool has_devices() const { return all_.size() > 1; }  // others than the CPU
    // The backend of a device; NULL: none of these.
    ggml_backend_t of(ggml_backend_dev_t device) const;

  private:
    void add(ggml_backend_dev_t device);
    std::vector<ggml_backend_ptr> owned_;
    std::vector<ggml_backend_t> all_;
    std::vector<ggml_backend_buffer_type_t> buffer_types_;  // of intermediate results, by backend
};

}  // namespace hw
