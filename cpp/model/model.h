// A loaded model: what llama.cpp read from the GGUF file, and the devices that hold its weights.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/once.h"
#include "hogwild.h"
#include "llama-cpp.h"
#include "model/adapters.h"
#include "model/devices.h"
#include "model/file-digest.h"
#include "model/first-bytes.h"
#include "model/layer-spec.h"

namespace hw {

class Model {
  public:
    // Throws HW_ERROR_ARGUMENT, HW_ERROR_MODEL, HW_ERROR_UNSUPPORTED, HW_ERROR_MEMORY, HW_ERROR_CANCELLED,
    // HW_ERROR_DEVICE.
    explicit Model(const hw_model_params& params);

    llama_model* llama() const { return model_.get(); }
    const llama_vocab* vocab() const { return llama_model_get_vocab(model_.get()); }
    // Some files have none; llama.cpp ends the process when such a vocabulary is asked for most things.
    bool has_vocab() const { return llama_vocab_type(vocab()) != LLAMA_VOCAB_TYPE_NONE; }
    int32_t n_vocab() const { return llama_vocab_n_tokens(vocab()); }
    bool vocab_only() const { return vocab_only_; }
    int32_t n_ctx_train() const { return vocab_only_ ? 0 : llama_model_n_ctx_train(model_.get()); }
    int32_t n_threads() const { return n_threads_; }
    int32_t n_threads_chunk() const { return n_threads_chunk_; }
    const Adapters& adapters() const { return adapters_; }
    const std::string& path() const { return path_; }
    const ModelFiles& files() const { return files_; }
    std::string architecture() const;
    // A value of the metadata, empty if there is none. "%s." stands for the architecture: "%s.rope.freq_base".
    std::string metadata(const std::string& key) const;

    // The devices that the model may use, without the CPU.
    std::vector<ggml_backend_dev_t> devices() const;
    // Bytes of weights.
    BytesByPlace placement() const;
    // Bytes of weights that lie in pages of the model's files.
    size_t n_mapped_bytes() const;

    // Of a model with a vocabulary.
    const FirstBytes& first_bytes() const;

    // What is read off graphs of this model, see graph/sliding-window.h and graph/source-graph.h.
    const Once<SlidingWindow>& sliding_window() const { return sliding_window_; }
    // Some models have other frequency factors in long contexts.
    const Once<ModelSpec>& spec(bool has_long_factors) const { return specs_[has_long_factors ? 1 : 0]; }

  private:
    llama_model_ptr model_;
    Adapters adapters_;  // after the model, which must outlive them
    std::string path_;
    ModelFiles files_;
    int32_t n_threads_;
    int32_t n_threads_chunk_;
    bool vocab_only_;
    Once<FirstBytes> first_bytes_;
    Once<SlidingWindow> sliding_window_;
    std::array<Once<ModelSpec>, 2> specs_;
};

using ModelPtr = std::shared_ptr<const Model>;

}  // namespace hw
