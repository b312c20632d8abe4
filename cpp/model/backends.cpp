#include "model/backends.h"

#include "base/error.h"
#include "base/memory.h"

namespace hw {

Backends::Backends(const Model& model) {
    for (ggml_backend_dev_t device : model.devices()) {
        add(device);
    }
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        if (ggml_backend_dev_type(ggml_backend_dev_get(i)) == GGML_BACKEND_DEVICE_TYPE_ACCEL) {
            add(ggml_backend_dev_get(i));
        }
    }
    add(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    set_n_threads(model.n_threads());
    for (ggml_backend_t backend : all_) {
        buffer_types_.push_back(ggml_backend_get_default_buffer_type(backend));
    }
    // As llama.cpp: what the CPU and the first device hand each other lies in memory that the device copies fast.
    if (!model.devices().empty()) {
        ggml_backend_buffer_type_t host = ggml_backend_dev_host_buffer_type(model.devices().front());
        buffer_types_.back() = host != nullptr ? host : buffer_types_.back();
    }
}

ggml_backend_t Backends::of(ggml_backend_dev_t device) const {
    for (ggml_backend_t backend : all_) {
        if (ggml_backend_get_device(backend) == device) {
            return backend;
        }
    }
    return nullptr;
}

void Backends::add(ggml_backend_dev_t device) {
    ggml_backend_ptr backend(ggml_backend_dev_init(device, nullptr));
    if (backend == nullptr) {
        fail(HW_ERROR_MEMORY, "cannot start the backend of device '%s'", ggml_backend_dev_name(device));
    }
    all_.push_back(backend.get());
    owned_.push_back(std::move(backend));
}

void Backends::set_n_threads(int32_t n) {
    for (ggml_backend_t backend : all_) {
        ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend));
        auto set = reinterpret_cast<ggml_backend_set_n_threads_t>(
            ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads"));
        if (set != nullptr) {
            set(backend, n);
        }
    }
}

size_t Backends::n_host_bytes(ggml_backend_sched_t scheduler) const {
    size_t sum = 0;
    for (size_t i = 0; i < all_.size(); i++) {
        sum += ggml_backend_buft_is_host(buffer_types_[i]) ? ggml_backend_sched_get_buffer_size(scheduler, all_[i]) : 0;
    }
    return sum;
}

ggml_backend_sched_ptr Backends::new_scheduler(size_t n_nodes) {
    require_memory(n_nodes * n_bytes_of_scheduler, "a scheduler");
    ggml_backend_sched_ptr scheduler(
        ggml_backend_sched_new(all_.data(), buffer_types_.data(), static_cast<int>(all_.size()), n_nodes, false, true));
    if (scheduler == nullptr) {
        fail(HW_ERROR_MEMORY, "no memory for a scheduler of %zu nodes", n_nodes);
    }
    return scheduler;
}

}  // namespace hw
