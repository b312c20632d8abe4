#include "model/gguf-file.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/log.h"

namespace hw {

namespace {

constexpr char split_number[] = "split.no";  // from 0 on
constexpr char split_count[] = "split.count";
constexpr size_t suffix_length = sizeof("-00001-of-00003.gguf") - 1;

// By the name of the first file alone.
std::vector<std::string> paths_named(const std::string& path) {
    int number = 0;
    int count = 0;
    char end = 0;
    if (path.size() <= suffix_length ||
        std::sscanf(path.c_str() + path.size() - suffix_length, "-%5d-of-%5d.ggu%c", &number, &count, &end) != 3 ||
        end != 'f' || number != 1 || count < 2) {
        return {path};
    }
    const std::string prefix = path.substr(0, path.size() - suffix_length);
    std::vector<std::string> paths;
    for (int i = 1; i <= count; i++) {
        char suffix[suffix_length + 1];
        std::snprintf(suffix, sizeof(suffix), "-%05d-of-%05d.gguf", i, count);
        paths.push_back(prefix + suffix);
    }
    return paths;
}

void check_part(const char* path, size_t index) {
    const GgufFile part(path, "part of a split model", /*with_data=*/false);
    const int64_t key = part.has(split_number, GGUF_TYPE_UINT16) ? gguf_find_key(part.metadata(), split_number) : -1;
    if (key < 0 || gguf_get_val_u16(part.metadata(), key) != index) {
        fail(HW_ERROR_MODEL, "'%s' is not part %zu of a split model: its '%s' says so", path, index + 1, split_number);
    }
}

// gguf allocates what the header says, and asserts that it gets it.
void check_has_data(const GgufFile& file, const char* path, const char* what) {
    std::error_code error;
    const size_t n_there = std::filesystem::file_size(path, error);
    size_t n_left = n_there - std::min(n_there, gguf_get_data_offset(file.metadata()));
    for (const ggml_tensor* tensor : file.tensors()) {
        if (error || ggml_nbytes(tensor) > n_left) {
            fail(HW_ERROR_MODEL, "cannot read %s '%s': it ends before '%s' does", what, path, tensor->name);
        }
        n_left -= ggml_nbytes(tensor);
    }
}

}  // namespace

// llama.cpp says "failed to load" for all of these: look first, to name the fault.
void check_gguf_file(const char* path, const char* what) {
    std::FILE* file = std::fopen(path, "rb");
    if (file == nullptr) {
        fail(HW_ERROR_MODEL, "cannot open %s (%s): '%s'", what, std::strerror(errno), path);
    }
    char magic[4] = {};
    const bool is_gguf = std::fread(magic, 1, 4, file) == 4 && std::string(magic, 4) == "GGUF";
    const int fault = std::ferror(file) != 0 ? errno : 0;  // of a directory: it opens, but does not read
    std::fclose(file);
    if (fault != 0) {
        fail(HW_ERROR_MODEL, "cannot read %s (%s): '%s'", what, std::strerror(fault), path);
    }
    if (!is_gguf) {
        fail(HW_ERROR_MODEL, "'%s' is not a GGUF file (it does not begin with 'GGUF')", path);
    }
}

GgufFile::GgufFile(const char* path, const char* what, bool with_data) {
    if (with_data) {
        check_has_data(GgufFile(path, what, false), path, what);
    } else {
        check_gguf_file(path, what);
    }
    LogScope log;
    ggml_context* tensors = nullptr;
    gguf_.reset(gguf_init_from_file(path, {!with_data, &tensors}));
    tensors_.reset(tensors);
    if (gguf_ == nullptr || tensors_ == nullptr) {
        fail(HW_ERROR_MODEL, "cannot read %s '%s': %s", what, path, log.errors().c_str());
    }
}

bool GgufFile::has(const char* key, gguf_type type) const {
    const int64_t id = gguf_find_key(gguf_.get(), key);
    return id >= 0 && gguf_get_kv_type(gguf_.get(), id) == type;
}

std::string GgufFile::text(const char* key) const {
    return has(key, GGUF_TYPE_STRING) ? gguf_get_val_str(gguf_.get(), gguf_find_key(gguf_.get(), key)) : "";
}

std::vector<const ggml_tensor*> GgufFile::tensors() const {
    std::vector<const ggml_tensor*> found;
    for (int64_t i = 0; i < gguf_get_n_tensors(gguf_.get()); i++) {
        found.push_back(find(gguf_get_tensor_name(gguf_.get(), i)));
    }
    return found;
}

std::vector<std::string> model_parts(const std::string& path) {
    const std::vector<std::string> paths = paths_named(path);
    if (paths.size() == 1 || !GgufFile(path.c_str(), "model file", false).has(split_count, GGUF_TYPE_UINT16)) {
        return {path};
    }
    for (size_t i = 1; i < paths.size(); i++) {
        check_part(paths[i].c_str(), i);
    }
    return paths;
}

}  // namespace hw
