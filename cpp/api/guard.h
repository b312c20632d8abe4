// What each function of the C API runs in: exceptions become a status and a text, or the answer that stands for none;
// calls from inside a log hook are refused.
#pragma once

#include <cstdio>
#include <exception>
#include <new>

#include "base/error.h"
#include "base/log.h"

namespace hw {

inline hw_status report(hw_status status, const char* text, char* err, size_t err_size) noexcept {
    if (err != nullptr && err_size > 0) {
        std::snprintf(err, err_size, "%s", text);
    }
    return status;
}

template <typename Call>
hw_status guard(char* err, size_t err_size, Call call) noexcept {
    if (is_in_hook()) {
        return report(HW_ERROR_BUSY, "called from inside a log hook: note the line, and call when it has returned", err,
                      err_size);
    }
    LogScope log;  // around the try: what is freed when an error unwinds has something to say too
    try {
        call();
        return HW_OK;
    } catch (const Error& error) {
        return report(error.status(), error.what(), err, err_size);
    } catch (const std::bad_alloc&) {
        return report(HW_ERROR_MEMORY, "out of memory", err, err_size);
    } catch (const std::exception& error) {
        return report(HW_ERROR_COMPUTE, error.what(), err, err_size);
    } catch (...) {
        return report(HW_ERROR_COMPUTE, "unknown exception", err, err_size);
    }
}

// What a call returns that has no status; nothing: what it returns where it fails.
template <typename T, typename Call>
T answer(T nothing, Call call) noexcept {
    T result = nothing;
    return guard(nullptr, 0, [&] { result = call(); }) == HW_OK ? result : nothing;
}

// Frees an object, or where a hook asks for it, after the call that the hook runs in.
template <typename T>
void free_handle(T* handle) noexcept {
    if (handle == nullptr) {
        return;
    }
    LogScope log;
    if (!is_in_hook()) {
        delete handle;
        return;
    }
    try {
        defer([handle] { delete handle; });
    } catch (const std::bad_alloc&) {
        // Kept for good: better than freed in use.
    }
}

// Throws HW_ERROR_ARGUMENT.
template <typename T>
T& not_null(T* pointer, const char* name) {
    if (pointer == nullptr) {
        fail(HW_ERROR_ARGUMENT, "%s is NULL", name);
    }
    return *pointer;
}

// Throws HW_ERROR_ARGUMENT: no room may be NULL, some room may not, and there is no room for less than nothing.
template <typename T, typename Size>
void check_room(T* buffer, Size size) {
    if (static_cast<int64_t>(size) < 0 || (buffer == nullptr && size > 0)) {
        fail(HW_ERROR_ARGUMENT, "a buffer is NULL, or its size negative");
    }
}

}  // namespace hw
