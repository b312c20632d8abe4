#include "model/amx-workaround.h"

#include <algorithm>
#include <cstring>

#include "ggml-backend.h"

namespace hw {

namespace {

constexpr bool has_gcc_bug() {
#if defined(__GNUC__) && !defined(__clang__)
    return __GNUC__ < 12 || (__GNUC__ == 12 && __GNUC_MINOR__ < 4) || (__GNUC__ == 13 && __GNUC_MINOR__ < 3);
#else
    return false;
#endif
}

bool is_amx(ggml_backend_buffer_type_t type) { return std::strcmp(ggml_backend_buft_name(type), "AMX") == 0; }

}  // namespace

void avoid_broken_amx() {
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (!has_gcc_bug() || cpu == nullptr) {
        return;
    }
    auto get_types = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), "ggml_backend_dev_get_extra_bufts"));
    ggml_backend_buffer_type_t* types = get_types != nullptr ? get_types(cpu) : nullptr;
    if (types == nullptr) {
        return;
    }
    ggml_backend_buffer_type_t* end = types;
    while (*end != nullptr) {
        end++;
    }
    std::fill(std::remove_if(types, end, is_amx), end, nullptr);
}

}  // namespace hw
