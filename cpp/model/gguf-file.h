// The header of a GGUF file: metadata and tensor shapes. For files that llama.cpp would end the process over, or refuse
// without a reason.
#pragma once

#include <string>
#include <vector>

#include "ggml-cpp.h"

namespace hw {

// Throws HW_ERROR_MODEL if it cannot be read or is no GGUF file. `what` names its kind in the error: "model file".
void check_gguf_file(const char* path, const char* what);

class GgufFile {
  public:
    // Throws HW_ERROR_MODEL. with_data: the tensors have their data too, else only their shapes.
    GgufFile(const char* path, const char* what, bool with_data);

    std::string text(const char* key) const;  // "" if there is no such key, or it is no text
    bool has(const char* key, gguf_type type) const;
    const gguf_context* metadata() const { return gguf_.get(); }
    const ggml_tensor* find(const char* name) const { return ggml_get_tensor(tensors_.get(), name); }
    std::vector<const ggml_tensor*> tensors() const;

  private:
    gguf_context_ptr gguf_;
    ggml_context_ptr tensors_;
};

// The files of a model whose first one this is: several if it is named NAME-00001-of-0000N.gguf and says that it is
// split. Throws HW_ERROR_MODEL if a part is missing, or not the one that its name says.
std::vector<std::string> model_parts(const std::string& path);

}  // namespace hw
