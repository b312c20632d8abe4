#include "model/trial.h"

#include "base/error.h"
#include "base/log.h"
#include "llama.h"

namespace hw {

void try_model(const char* path, const std::vector<std::string>& loras) {
    LogScope log;
    llama_model_params model_params = llama_model_default_params();
    model_params.no_alloc = true;
    model_params.load_mode = LLAMA_LOAD_MODE_NONE;
    model_params.n_gpu_layers = 0;
    llama_model* model = llama_model_load_from_file(path, model_params);
    if (model == nullptr) {
        fail(HW_ERROR_MODEL, "llama.cpp cannot load '%s': %s", path, log.errors().c_str());
    }
    for (const std::string& lora : loras) {
        llama_adapter_lora_init(model, lora.c_str());
    }
    llama_context_params params = llama_context_default_params();
    params.n_ctx = 64;
    params.n_batch = params.n_ubatch = 8;
    params.n_threads = 1;
    llama_init_from_model(model, params);
}

}  // namespace hw
