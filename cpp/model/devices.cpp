#include "model/devices.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/log.h"
#include "ggml-rpc.h"

namespace hw {

namespace {

// ggml's GGML_SCHED_MAX_BACKENDS, which no header has: it ends the process where there are more.
constexpr size_t max_backends = 16;

constexpr const char* no_rpc = "this build of llama.cpp has no RPC backend";

template <typename Function>
Function* rpc_function(const char* name) {
    ggml_backend_reg_t rpc = ggml_backend_reg_by_name("RPC");
    void* function = rpc == nullptr ? nullptr : ggml_backend_reg_get_proc_address(rpc, name);
    if (function == nullptr) {
        fail(HW_ERROR_DEVICE, "%s", no_rpc);
    }
    return reinterpret_cast<Function*>(function);
}

std::vector<ggml_backend_dev_t> devices_of_type(enum ggml_backend_dev_type type) {
    std::vector<ggml_backend_dev_t> found;
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        if (ggml_backend_dev_type(ggml_backend_dev_get(i)) == type) {
            found.push_back(ggml_backend_dev_get(i));
        }
    }
    return found;
}

std::string id_of(ggml_backend_dev_t device) {
    ggml_backend_dev_props props;
    ggml_backend_dev_get_props(device, &props);
    return props.device_id != nullptr ? props.device_id : "";
}

// As llama.cpp chooses them: of a GPU that two backends know, the first; integrated ones only where there is no other.
std::vector<ggml_backend_dev_t> local_gpus() {
    std::vector<ggml_backend_dev_t> chosen;
    for (ggml_backend_dev_t device : devices_of_type(GGML_BACKEND_DEVICE_TYPE_GPU)) {
        const std::string id = id_of(device);
        if (id.empty() || std::none_of(chosen.begin(), chosen.end(), [&](auto other) { return id_of(other) == id; })) {
            chosen.push_back(device);
        }
    }
    if (chosen.empty()) {
        for (ggml_backend_dev_t device : devices_of_type(GGML_BACKEND_DEVICE_TYPE_IGPU)) {
            if (chosen.empty() || ggml_backend_dev_backend_reg(device) == ggml_backend_dev_backend_reg(chosen[0])) {
                chosen.push_back(device);
            }
        }
    }
    return chosen;
}

ggml_backend_dev_t device_named(const char* name) {
    ggml_backend_dev_t device = name == nullptr ? nullptr : ggml_backend_dev_by_name(name);
    if (device == nullptr) {
        fail(HW_ERROR_ARGUMENT, "there is no device '%s'; this machine has:\n%s", name == nullptr ? "(null)" : name,
             list_devices().c_str());
    }
    return device;
}

std::vector<ggml_backend_dev_t> devices_of_servers(const hw_model_params& params) {
    std::vector<ggml_backend_dev_t> devices;
    if (params.n_rpc_servers < 1) {
        return devices;
    }
    auto* const add_server = rpc_function<decltype(ggml_backend_rpc_add_server)>("ggml_backend_rpc_add_server");
    for (int32_t i = 0; i < params.n_rpc_servers; i++) {
        const char* server = params.rpc_servers[i];
        if (server == nullptr || std::strchr(server, ':') == nullptr) {
            fail(HW_ERROR_ARGUMENT, "'%s' is not a server: host:port", server != nullptr ? server : "(null)");
        }
        ggml_backend_reg_t reg = add_server(server);
        if (reg == nullptr) {
            fail(HW_ERROR_DEVICE, "the RPC server %s has no devices", server);
        }
        for (size_t k = 0; k < ggml_backend_reg_dev_count(reg); k++) {
            devices.push_back(ggml_backend_reg_dev_get(reg, k));
        }
    }
    return devices;
}

std::vector<ggml_backend_dev_t> named_gpus(const hw_model_params& params) {
    std::vector<ggml_backend_dev_t> devices;
    for (int32_t i = 0; i < params.n_devices; i++) {
        ggml_backend_dev_t device = device_named(params.devices[i]);
        const enum ggml_backend_dev_type type = ggml_backend_dev_type(device);
        if (type != GGML_BACKEND_DEVICE_TYPE_GPU && type != GGML_BACKEND_DEVICE_TYPE_IGPU) {
            fail(HW_ERROR_ARGUMENT, "the device '%s' is no GPU: what is not on one is on the CPU", params.devices[i]);
        }
        if (std::find(devices.begin(), devices.end(), device) != devices.end()) {
            fail(HW_ERROR_ARGUMENT, "the device '%s' is named twice", params.devices[i]);
        }
        devices.push_back(device);
    }
    return devices;
}

std::vector<ggml_backend_dev_t> devices_to_serve(const hw_rpc_server_params& params) {
    std::vector<ggml_backend_dev_t> devices;
    for (int32_t i = 0; i < params.n_devices; i++) {
        devices.push_back(device_named(params.devices[i]));
    }
    if (devices.empty()) {
        devices = local_gpus();
    }
    if (devices.empty()) {
        devices.push_back(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    }
    return devices;
}

}  // namespace

void load_rpc_backend(const char* path) {
    LogScope log;
    if (ggml_backend_reg_by_name("RPC") != nullptr) {
        return;
    }
    if (path == nullptr) {
        fail(HW_ERROR_DEVICE, "%s", no_rpc);
    }
    if (ggml_backend_load(path) == nullptr) {
        fail(HW_ERROR_DEVICE, "ggml cannot load a backend from '%s': %s", path, log.errors().c_str());
    }
    if (ggml_backend_reg_by_name("RPC") == nullptr) {
        fail(HW_ERROR_DEVICE, "'%s' is a backend of ggml, but not the RPC backend", path);
    }
}

std::vector<ggml_backend_dev_t> devices_for(const hw_model_params& params) {
    std::vector<ggml_backend_dev_t> devices = devices_of_servers(params);
    const std::vector<ggml_backend_dev_t> local = params.devices == nullptr ? local_gpus() : named_gpus(params);
    devices.insert(devices.end(), local.begin(), local.end());
    const size_t n_others = devices_of_type(GGML_BACKEND_DEVICE_TYPE_ACCEL).size() + 1;  // the CPU
    if (devices.size() + n_others > max_backends) {
        fail(HW_ERROR_DEVICE, "%zu devices are too many: ggml computes on at most %zu at once", devices.size(),
             max_backends - n_others);
    }
    devices.push_back(nullptr);
    return devices;
}

ggml_backend_dev_t device_of(const ggml_tensor* tensor) {
    return tensor->buffer == nullptr ? nullptr
                                     : ggml_backend_buft_get_device(ggml_backend_buffer_get_type(tensor->buffer));
}

std::string list_devices() {
    std::string text;
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        text += std::string(ggml_backend_dev_name(device)) + "\t" + ggml_backend_dev_description(device) + "\n";
    }
    return text;
}

std::string list_gpus() {
    std::string text;
    for (ggml_backend_dev_t device : local_gpus()) {
        text += std::string(ggml_backend_dev_name(device)) + "\n";
    }
    return text;
}

void run_rpc_server(const hw_rpc_server_params& params) {
    if (params.endpoint == nullptr || params.n_threads < 1) {
        fail(HW_ERROR_ARGUMENT, "a server needs an endpoint and at least one thread");
    }
    auto* const start = rpc_function<decltype(ggml_backend_rpc_start_server)>("ggml_backend_rpc_start_server");
    LogScope log;
    std::vector<ggml_backend_dev_t> devices = devices_to_serve(params);
    start(params.endpoint, nullptr, static_cast<size_t>(params.n_threads), devices.size(), devices.data());
    fail(HW_ERROR_DEVICE, "ggml's RPC server on %s ended: %s", params.endpoint, log.errors().c_str());
}

}  // namespace hw
