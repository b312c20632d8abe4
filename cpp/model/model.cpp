#include "model/model.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <set>

#include "base/c-enum.h"
#include "base/error.h"
#include "base/log.h"
#include "model/amx-workaround.h"
#include "model/gguf-file.h"
#include "model/llama-staging.h"

namespace hw {

namespace {

struct Progress {
    hw_progress_callback callback;
    void* user_data;
    bool stopped;
};

bool on_progress(float value, void* data) {
    auto* progress = static_cast<Progress*>(data);
    if (progress->callback != nullptr && !progress->callback(value, progress->user_data)) {
        progress->stopped = true;
    }
    return !progress->stopped;
}

std::string metadata(const llama_model* model, const std::string& key) {
    char value[128] = "";
    llama_model_meta_val_str(model, key.c_str(), value, sizeof(value));
    return value;
}

// RWKV's tokenizer has no other way on where a text begins as a token does and none fits: llama.cpp goes round for
// ever.
void check_bytes(const llama_vocab* vocab) {
    if (llama_vocab_type(vocab) != LLAMA_VOCAB_TYPE_RWKV) {
        return;
    }
    std::set<unsigned char> known;
    for (int32_t token = 0; token < llama_vocab_n_tokens(vocab); token++) {
        char piece = 0;
        if (llama_token_to_piece(vocab, token, &piece, 1, 0, true) == 1) {
            known.insert(static_cast<unsigned char>(piece));
        }
    }
    if (known.size() != 256) {
        fail(HW_ERROR_MODEL, "the vocabulary of the model has no tokens for %d of the 256 bytes",
             256 - static_cast<int>(known.size()));
    }
}

void check_kind(const llama_model* model) {
    const std::string architecture = metadata(model, "general.architecture");
    const char* reason = nullptr;
    if (!llama_model_has_decoder(model)) {
        reason = "it has no decoder";
    } else if (llama_model_has_encoder(model)) {
        reason = "it has an encoder beside its decoder";
    } else if (llama_model_is_diffusion(model)) {
        reason = "it is a diffusion model";
    } else if (metadata(model, architecture + ".attention.causal") == "false") {
        reason = "it is an encoder: every token sees those behind it";
    }
    if (reason != nullptr) {
        fail(HW_ERROR_UNSUPPORTED, "architecture '%s' is not supported: %s", architecture.c_str(), reason);
    }
}

// llama.cpp reads as many numbers as there are devices, from an array of this size.
std::vector<float> checked_split(const hw_model_params& params) {
    std::vector<float> split(llama_max_devices(), 0.0f);
    if (params.n_tensor_split > static_cast<int32_t>(split.size())) {
        fail(HW_ERROR_ARGUMENT, "tensor_split has %d numbers: at most %zu", params.n_tensor_split, split.size());
    }
    float sum = 0.0f;
    for (int32_t i = 0; i < params.n_tensor_split; i++) {
        const float part = params.tensor_split[i];
        if (!std::isfinite(part) || part < 0.0f) {
            fail(HW_ERROR_ARGUMENT, "tensor_split: %g is not a part of the whole", static_cast<double>(part));
        }
        split[static_cast<size_t>(i)] = part;
        sum += part;
    }
    if (params.n_tensor_split > 0 && !(sum > 0.0f && std::isfinite(sum))) {
        fail(HW_ERROR_ARGUMENT, "tensor_split gives no device anything");
    }
    return split;
}

void check_split_mode(const hw_model_params& params) {
    const int32_t mode = number_of(params.split_mode);
    if (mode < HW_SPLIT_LAYER || mode > HW_SPLIT_NONE) {
        fail(HW_ERROR_ARGUMENT, "split_mode is %d, no value of hw_split", mode);
    }
}

void check_devices(const hw_model_params& params, size_t n_devices) {
    const int32_t n = static_cast<int32_t>(n_devices);
    if (params.n_tensor_split > n) {
        fail(HW_ERROR_ARGUMENT, "tensor_split has %d numbers, but there are %d devices besides the CPU",
             params.n_tensor_split, n);
    }
    if (params.split_mode == HW_SPLIT_NONE && n == 0) {
        fail(HW_ERROR_ARGUMENT, "split_mode none: there is no device besides the CPU");
    }
}

}  // namespace

Model::Model(const hw_model_params& params)
    : n_threads_(params.n_threads),
      n_threads_chunk_(params.n_threads_chunk == 0 ? params.n_threads : params.n_threads_chunk),
      vocab_only_(params.vocab_only) {
    if (params.path == nullptr || params.n_threads < 1 || params.n_threads > 512) {
        fail(HW_ERROR_ARGUMENT, "a model needs a path and 1 to 512 threads");
    }
    if (n_threads_chunk_ < 1 || n_threads_chunk_ > n_threads_) {
        fail(HW_ERROR_ARGUMENT, "n_threads_chunk is %d: it must be 0, or 1 to n_threads (%d)", n_threads_chunk_,
             n_threads_);
    }
    if (vocab_only_ && (params.n_loras != 0 || params.n_control_vectors != 0)) {
        fail(HW_ERROR_ARGUMENT,
             "a model of vocab_only has no layers that LoRA adapters or control vectors could change");
    }
    check_split_mode(params);
    check_gguf_file(params.path, "model file");
    files_ = ModelFiles(model_parts(params.path));  // llama.cpp may end the process where one is another file
    path_ = params.path;

    LogScope log;
    Progress progress = {params.progress, params.user_data, false};
    llama_model_params llama_params = llama_model_default_params();
    llama_params.n_gpu_layers = params.n_gpu_layers;
    llama_params.load_mode = params.use_mmap ? LLAMA_LOAD_MODE_AUTO : LLAMA_LOAD_MODE_NONE;
    llama_params.vocab_only = vocab_only_;
    std::vector<float> split = checked_split(params);
    if (params.n_tensor_split > 0) {
        llama_params.tensor_split = split.data();
    }
    llama_params.split_mode = params.split_mode == HW_SPLIT_NONE ? LLAMA_SPLIT_MODE_NONE : LLAMA_SPLIT_MODE_LAYER;
    llama_params.main_gpu = params.main_gpu;
    std::vector<ggml_backend_dev_t> devices = devices_for(params);
    llama_params.devices = devices.data();
    llama_params.progress_callback = on_progress;
    llama_params.progress_callback_user_data = &progress;

    avoid_broken_amx();
    model_.reset(llama_model_load_from_file(params.path, llama_params));
    if (progress.stopped) {
        fail(HW_ERROR_CANCELLED, "loading '%s' was cancelled", params.path);
    }
    if (model_ == nullptr) {
        fail(HW_ERROR_MODEL, "llama.cpp cannot load '%s': %s", params.path, log.errors().c_str());
    }
    check_bytes(vocab());
    if (vocab_only_) {
        if (!has_vocab()) {
            fail(HW_ERROR_MODEL, "'%s' has no vocabulary", params.path);
        }
        return;  // what cannot be run here can still be tokenized
    }
    check_kind(model_.get());
    check_devices(params, this->devices().size());
    adapters_ = Adapters(model_.get(), params);
}

std::string Model::architecture() const { return hw::metadata(model_.get(), "general.architecture"); }

std::string Model::metadata(const std::string& key) const {
    return hw::metadata(model_.get(), key.rfind("%s", 0) == 0 ? architecture() + key.substr(2) : key);
}

const FirstBytes& Model::first_bytes() const {
    return first_bytes_.get([this] { return FirstBytes(vocab()); });
}

std::vector<ggml_backend_dev_t> Model::devices() const {
    std::vector<ggml_backend_dev_t> devices;
    for (int i = 0; i < llama_model_n_devices(model_.get()); i++) {
        devices.push_back(llama_model_get_device(model_.get(), i));
    }
    return devices;
}

BytesByPlace Model::placement() const {
    BytesByPlace bytes;
    std::set<const ggml_tensor*> seen;  // some have several names
    for (const auto& [name, tensor] : llama_internal_get_tensor_map(model_.get())) {
        if (seen.insert(tensor).second) {
            const int32_t layer = name.rfind("blk.", 0) == 0 ? std::atoi(name.c_str() + 4) : -1;
            bytes[{device_of(tensor), layer}] += ggml_nbytes(tensor);
        }
    }
    return bytes;
}

size_t Model::n_mapped_bytes() const {
    size_t n_bytes = 0;
    std::set<const ggml_tensor*> seen;
    for (const auto& [name, tensor] : llama_internal_get_tensor_map(model_.get())) {
        const bool is_mapped =
            tensor->buffer != nullptr && std::strcmp(ggml_backend_buffer_name(tensor->buffer), "CPU_Mapped") == 0;
        n_bytes += is_mapped && seen.insert(tensor).second ? ggml_nbytes(tensor) : 0;
    }
    return n_bytes;
}

}  // namespace hw
