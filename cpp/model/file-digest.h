// What tells one model file from another, without reading all of it.
#pragma once

#include <string>
#include <vector>

#include "model/gguf-file.h"

namespace hw {

// Of a GGUF file: its size, its header (all metadata, tensor names, shapes, types) and a few bytes of each tensor.
// Throws HW_ERROR_MODEL if it cannot be read.
std::string file_digest(const std::string& path, const GgufFile& header);

// The files that a model was loaded from, as they were then: weights that are mapped into memory stay what they were
// when another file takes the name of the first.
class ModelFiles {
  public:
    ModelFiles() = default;
    explicit ModelFiles(const std::vector<std::string>& paths);
    // Throws HW_ERROR_MODEL if they are gone, or others by now.
    std::string digest() const;

  private:
    struct File {
        std::string path;
        int64_t n_bytes;
        int64_t time;  // of the last change, in the file system's own units
    };
    static File now(const std::string& path);
    std::vector<File> files_;
};

}  // namespace hw
