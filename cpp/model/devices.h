// Devices: those that a model may use, here and on other machines (ggml's RPC backend), what lies on which, and ggml's
// own server.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ggml-backend.h"
#include "hogwild.h"

namespace hw {

// Bytes by device and layer; layer -1: of no layer.
using BytesByPlace = std::map<std::pair<ggml_backend_dev_t, int32_t>, uint64_t>;

// Sees to it that ggml has its RPC backend, from a shared library if this build of llama.cpp came without it; path may
// be NULL. Throws HW_ERROR_DEVICE.
void load_rpc_backend(const char* path);

// The devices of a model on its servers and on this machine, a NULL behind them: in llama.cpp's order, and of its
// choice where none are named. Connects to the servers: ggml ends the process if one is not there. Throws
// HW_ERROR_ARGUMENT, HW_ERROR_DEVICE (also where there are more than ggml's scheduler can hold).
std::vector<ggml_backend_dev_t> devices_for(const hw_model_params& params);

// The device whose memory a tensor lies in; NULL if ggml does not say.
ggml_backend_dev_t device_of(const ggml_tensor* tensor);

// All that this process can compute on, a line each: name, tab, description.
std::string list_devices();

// Those of this machine that a model uses unless told otherwise, a name a line.
std::string list_gpus();

// ggml's server, for as long as it runs. Throws HW_ERROR_ARGUMENT, HW_ERROR_DEVICE.
void run_rpc_server(const hw_rpc_server_params& params);

}  // namespace hw
