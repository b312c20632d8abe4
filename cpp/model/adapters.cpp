#include "model/adapters.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

#include "base/digest.h"
#include "base/error.h"
#include "base/log.h"
#include "model/file-digest.h"

namespace hw {

namespace {

constexpr char lora_file[] = "LoRA adapter";
constexpr char control_file[] = "control vector";
constexpr char embedding[] = "token_embd.weight";

void check_path(const char* path, float scale, const char* what) {
    if (path == nullptr || !std::isfinite(scale)) {
        fail(HW_ERROR_ARGUMENT, "a %s needs a path and a finite scale", what);
    }
}

// llama.cpp checks these as well, but a key of another type ends the process there.
void check_metadata(const GgufFile& file, const char* path, const std::string& architecture) {
    if (file.text("general.type") != "adapter" || file.text("adapter.type") != "lora") {
        fail(HW_ERROR_MODEL, "'%s' is no LoRA adapter: its general.type and adapter.type are '%s' and '%s'", path,
             file.text("general.type").c_str(), file.text("adapter.type").c_str());
    }
    if (file.text("general.architecture") != architecture) {
        fail(HW_ERROR_MODEL, "LoRA adapter '%s' is of architecture '%s', the model of '%s'", path,
             file.text("general.architecture").c_str(), architecture.c_str());
    }
    if (!file.has("adapter.lora.alpha", GGUF_TYPE_FLOAT32)) {
        fail(HW_ERROR_MODEL, "LoRA adapter '%s' has no number 'adapter.lora.alpha'", path);
    }
}

const ggml_tensor* find_in(const std::vector<GgufFile>& files, const std::string& name) {
    for (const GgufFile& file : files) {
        if (const ggml_tensor* tensor = file.find(name.c_str())) {
            return tensor;
        }
    }
    return nullptr;
}

bool has_float_type(const ggml_tensor* tensor) {
    constexpr ggml_type types[] = {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0};
    return std::find(std::begin(types), std::end(types), tensor->type) != std::end(types);
}

// Whether llama.cpp can add b * a * x to the product of the weight [d_in, d_out, n_expert] and x.
bool fits(const ggml_tensor* weight, const ggml_tensor* a, const ggml_tensor* b) {
    const bool is_embedding = std::string(weight->name) == embedding;  // rows of a are looked up
    const bool fits_weight = is_embedding ? a->ne[1] == weight->ne[1] && b->ne[1] == weight->ne[0]
                                          : a->ne[0] == weight->ne[0] && b->ne[1] == weight->ne[1];
    return fits_weight && b->ne[0] > 0 && (is_embedding ? a->ne[0] : a->ne[1]) == b->ne[0] &&
           a->ne[2] == weight->ne[2] && b->ne[2] == weight->ne[2] && a->ne[3] == 1 && b->ne[3] == 1;
}

// What llama.cpp would find out only when it multiplies, with an assertion.
void check_pair(const GgufFile& file, const char* path, const std::string& name, const std::vector<GgufFile>& model) {
    const ggml_tensor* a = file.find((name + ".lora_a").c_str());
    const ggml_tensor* b = file.find((name + ".lora_b").c_str());
    const ggml_tensor* weight = find_in(model, name);
    if (a == nullptr || b == nullptr) {
        fail(HW_ERROR_MODEL, "LoRA adapter '%s' has only one of the two tensors of '%s'", path, name.c_str());
    }
    if (weight == nullptr) {
        fail(HW_ERROR_MODEL, "LoRA adapter '%s' changes '%s', which the model does not have", path, name.c_str());
    }
    if (!fits(weight, a, b) || !has_float_type(a) || !has_float_type(b)) {
        fail(HW_ERROR_MODEL, "LoRA adapter '%s' does not fit this model: the shape or type of its '%s' is another",
             path, name.c_str());
    }
    if (weight->type == GGML_TYPE_NVFP4) {
        fail(HW_ERROR_UNSUPPORTED, "LoRA adapter '%s': weights of type nvfp4 ('%s') take none", path, name.c_str());
    }
    if (name == embedding && find_in(model, "output.weight") == nullptr) {
        fail(HW_ERROR_UNSUPPORTED,
             "LoRA adapter '%s' changes '%s', which is also the output matrix of this model: llama.cpp cannot do that",
             path, embedding);
    }
}

void check_tensors(const GgufFile& file, const char* path, const std::vector<GgufFile>& model) {
    for (const ggml_tensor* tensor : file.tensors()) {
        const std::string name = tensor->name;
        const size_t end = name.rfind(".lora_");
        if (end != std::string::npos) {
            check_pair(file, path, name.substr(0, end), model);
        }
    }
}

std::vector<GgufFile> open_model(const char* path) {
    std::vector<GgufFile> files;
    for (const std::string& part : model_parts(path)) {
        files.emplace_back(part.c_str(), "model file", /*with_data=*/false);
    }
    return files;
}

std::string architecture_of(const llama_model* model) {
    char text[128] = "";
    llama_model_meta_val_str(model, "general.architecture", text, sizeof(text));
    return text;
}

// N of "direction.N"; -1: another name.
int32_t layer_of(const ggml_tensor* tensor) {
    const std::string name = tensor->name;
    const std::string prefix = "direction.";
    const bool is_direction = name.compare(0, prefix.size(), prefix) == 0 && name.size() > prefix.size() &&
                              name.size() <= prefix.size() + 6 &&
                              name.find_first_not_of("0123456789", prefix.size()) == std::string::npos;
    return is_direction ? std::atoi(name.c_str() + prefix.size()) : -1;
}

void check_direction(const ggml_tensor* tensor, const char* path, int32_t n_layer, int32_t n_embd) {
    const int32_t layer = layer_of(tensor);
    if (layer < 1 || layer >= n_layer || tensor->type != GGML_TYPE_F32 || ggml_nelements(tensor) != n_embd) {
        fail(HW_ERROR_MODEL,
             "control vector '%s' does not fit this model: of '%s' it takes %d numbers of type f32, for layers 1 to %d",
             path, tensor->name, n_embd, n_layer - 1);
    }
}

}  // namespace

Adapters::Adapters(llama_model* model, const hw_model_params& params) : n_embd_(llama_model_n_embd(model)) {
    if ((params.n_loras > 0 && params.loras == nullptr) ||
        (params.n_control_vectors > 0 && params.control_vectors == nullptr)) {
        fail(HW_ERROR_ARGUMENT, "adapters are counted but not given");
    }
    const std::vector<GgufFile> model_files = params.n_loras > 0 ? open_model(params.path) : std::vector<GgufFile>();
    for (int32_t i = 0; i < params.n_loras; i++) {
        load_lora(model, params.loras[i], model_files);
    }
    for (int32_t i = 0; i < params.n_control_vectors; i++) {
        load_control(model, params.control_vectors[i]);
    }
}

void Adapters::load_lora(llama_model* model, const hw_lora& lora, const std::vector<GgufFile>& model_files) {
    check_path(lora.path, lora.scale, lora_file);
    const GgufFile file(lora.path, lora_file, /*with_data=*/false);
    check_metadata(file, lora.path, architecture_of(model));
    check_tensors(file, lora.path, model_files);
    LogScope log;
    llama_adapter_lora_ptr adapter(llama_adapter_lora_init(model, lora.path));
    if (adapter == nullptr) {
        fail(HW_ERROR_MODEL, "llama.cpp cannot load LoRA adapter '%s': %s", lora.path, log.errors().c_str());
    }
    if (llama_adapter_get_alora_n_invocation_tokens(adapter.get()) > 0) {
        fail(HW_ERROR_UNSUPPORTED, "LoRA adapter '%s' begins to work at certain tokens (aLoRA): not supported",
             lora.path);
    }
    loras_.push_back(std::move(adapter));
    scales_.push_back(lora.scale);
    digests_.push_back(file_digest(lora.path, file));
}

void Adapters::load_control(const llama_model* model, const hw_control_vector& control) {
    check_path(control.path, control.scale, control_file);
    const GgufFile file(control.path, control_file, /*with_data=*/true);
    const int32_t n_layer = llama_model_n_layer(model);
    const int32_t last = control.last_layer == 0 ? n_layer - 1 : control.last_layer;
    const int32_t first = control.first_layer == 0 ? 1 : control.first_layer;
    if (first < 1 || last >= n_layer || first > last) {
        fail(HW_ERROR_ARGUMENT, "control vector '%s' for layers %d to %d: this model takes them in 1 to %d",
             control.path, first, last, n_layer - 1);
    }
    if (file.tensors().empty()) {
        fail(HW_ERROR_MODEL, "'%s' is no control vector: it has no tensor 'direction.N'", control.path);
    }
    directions_.resize(static_cast<size_t>(n_layer - 1) * static_cast<size_t>(n_embd_), 0.0f);
    for (const ggml_tensor* tensor : file.tensors()) {
        check_direction(tensor, control.path, n_layer, n_embd_);
        const int32_t layer = layer_of(tensor);
        const float scale = layer < first || layer > last ? 0.0f : control.scale;
        float* sum = directions_.data() + static_cast<ptrdiff_t>(layer - 1) * n_embd_;
        for (int32_t i = 0; i < n_embd_; i++) {
            sum[i] += scale == 0.0f ? 0.0f : static_cast<const float*>(tensor->data)[i] * scale;
        }
    }
}

std::string Adapters::digest() const {
    Digest digest;
    for (size_t i = 0; i < digests_.size(); i++) {
        if (scales_[i] != 0.0f) {
            digest.add(digests_[i]);
            digest.add_number(scales_[i]);
        }
    }
    if (std::any_of(directions_.begin(), directions_.end(), [](float number) { return number != 0.0f; })) {
        digest.add(directions_.data(), directions_.size() * sizeof(float));
    }
    return digest.value() == Digest().value() ? "none" : digest.text();
}

void Adapters::apply(llama_context* context) const {
    LogScope log;
    std::vector<llama_adapter_lora*> adapters;
    for (const llama_adapter_lora_ptr& lora : loras_) {
        adapters.push_back(lora.get());
    }
    std::vector<float> scales = scales_;  // llama.cpp takes it writable
    llama_set_adapters_lora(context, adapters.data(), adapters.size(), scales.data());
    const int32_t last = directions_.empty() ? 0 : static_cast<int32_t>(directions_.size()) / n_embd_;
    if (last > 0 && llama_set_adapter_cvec(context, directions_.data(), directions_.size(), n_embd_, 1, last) != 0) {
        fail(HW_ERROR_MEMORY, "no memory for control vectors: %s", log.errors().c_str());
    }
}

}  // namespace hw
