// Memory of the host, asked for before it is needed. Linux hands out more than there is and kills who touches it; and
// parts of ggml end the process where malloc fails.
#pragma once

#include <cstddef>
#include <string>

namespace hw {

// Bytes that this process can still touch: what is available, and what the control groups that it is in (containers)
// leave it, of which the smallest counts. SIZE_MAX: nothing here tells. root: where /proc and /sys are looked for.
size_t free_host_memory(const std::string& root = "");

// Throws HW_ERROR_MEMORY unless so many bytes, and some for what is small, can be had at this moment. They are given
// back at once, so that what is called next finds them.
void require_memory(size_t n_bytes, const char* what);

}  // namespace hw
