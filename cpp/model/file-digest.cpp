#include "model/file-digest.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/digest.h"
#include "base/error.h"

namespace hw {

namespace {

constexpr size_t sample_bytes = 64;  // of each tensor, from its middle

void add_bytes(Digest* digest, std::ifstream* file, size_t begin, size_t n, const std::string& path) {
    std::string bytes(n, 0);
    if (!file->seekg(static_cast<std::streamoff>(begin)) || !file->read(&bytes[0], static_cast<std::streamsize>(n))) {
        fail(HW_ERROR_MODEL, "cannot read '%s' to tell its weights from others", path.c_str());
    }
    digest->add(bytes);
}

}  // namespace

std::string file_digest(const std::string& path, const GgufFile& header) {
    std::ifstream file(std::filesystem::u8path(path), std::ios::binary);
    const gguf_context* gguf = header.metadata();
    const size_t data = gguf_get_data_offset(gguf);
    Digest digest;
    std::error_code error;
    digest.add_number(static_cast<uint64_t>(std::filesystem::file_size(std::filesystem::u8path(path), error)));
    const bool has_tensors = gguf_get_n_tensors(gguf) > 0;
    add_bytes(&digest, &file, 0, has_tensors ? data : 0, path);
    for (int64_t i = 0; i < gguf_get_n_tensors(gguf); i++) {
        const size_t size = gguf_get_tensor_size(gguf, i);
        const size_t n = size < sample_bytes ? size : sample_bytes;
        add_bytes(&digest, &file, data + gguf_get_tensor_offset(gguf, i) + (size - n) / 2, n, path);
    }
    return digest.text();
}

ModelFiles::ModelFiles(const std::vector<std::string>& paths) {
    for (const std::string& path : paths) {
        files_.push_back(now(path));
    }
}

// A file that cannot be looked at has size -1: that is said where its digest is asked for.
ModelFiles::File ModelFiles::now(const std::string& path) {
    std::error_code error;
    const auto file = std::filesystem::u8path(path);
    const auto n_bytes = static_cast<int64_t>(std::filesystem::file_size(file, error));
    const auto time = std::filesystem::last_write_time(file, error).time_since_epoch().count();
    return {path, n_bytes, static_cast<int64_t>(time)};
}

std::string ModelFiles::digest() const {
    Digest all;
    for (const File& file : files_) {
        const GgufFile header(file.path.c_str(), "model file", /*with_data=*/false);
        all.add(file_digest(file.path, header));
        const File found = now(file.path);
        if (found.n_bytes != file.n_bytes || found.time != file.time) {
            fail(HW_ERROR_MODEL, "'%s' was changed since it was loaded: what its weights were can no longer be told",
                 file.path.c_str());
        }
    }
    return all.text();
}

}  // namespace hw
