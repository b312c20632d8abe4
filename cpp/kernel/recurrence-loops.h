// What the recurrences have in common.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace hw {

// What is so small is 0, as in kernel/columns-impl.h.
inline float flushed(float x) { return std::fabs(x) < 1e-30f ? 0.0f : x; }

// [begin, end) of n things for thread ith of nth.
struct Share {
    int64_t begin;
    int64_t end;
};
inline Share share_of(int64_t n, int ith, int nth) { return {n * ith / nth, n * (ith + 1) / nth}; }

// data, some bytes on.
inline const float* at_bytes(const float* data, size_t n_bytes) {
    return reinterpret_cast<const float*>(reinterpret_cast<const char*>(data) + n_bytes);
}

}  // namespace hw
