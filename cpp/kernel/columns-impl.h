// The loops of kernel/columns.h, once per instruction set. Included by kernel/columns-<isa>.cpp, which defines
// HW_COLUMNS. Written so that compilers make vectors of them; nothing of std::, see kernel/task.h.
#pragma once

#include "kernel/columns.h"

namespace hw {
namespace {

constexpr int64_t lanes = 32;  // partial sums of a product: vectors of them, and a better sum than one after the other

inline float total(float* sums) {
    for (int64_t half = lanes / 2; half > 0; half /= 2) {
        for (int64_t l = 0; l < half; l++) {
            sums[l] += sums[l + half];
        }
    }
    return sums[0];
}

inline float dot(const float* a, const float* b, int64_t d) {
    float sums[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= d; i += lanes) {
        for (int64_t l = 0; l < lanes; l++) {
            sums[l] += a[i + l] * b[i + l];
        }
    }
    for (int64_t l = 0; i + l < d; l++) {
        sums[l] += a[i + l] * b[i + l];
    }
    return total(sums);
}

void read(const float* columns, int64_t n, int64_t d, const float* x, float* reads) {
    for (int64_t j = 0; j < n; j++) {
        reads[j] = dot(columns + j * d, x, d);
    }
}

void scan(float* columns, int64_t n, int64_t d, const float* decays, int64_t n_decay, const float* x, const float* b,
          const float* c, float* reads) {
    for (int64_t j = 0; j < n; j++, columns += d) {
        if (n_decay == 1) {
            for (int64_t i = 0; i < d; i++) {
                columns[i] = decays[0] * columns[i] + x[j] * b[i];
            }
        } else {
            for (int64_t i = 0; i < d; i++) {
                columns[i] = decays[i] * columns[i] + x[j] * b[i];
            }
        }
        reads[j] = dot(columns, c, d);
    }
}

}  // namespace

extern const ColumnLoops HW_COLUMNS;
const ColumnLoops HW_COLUMNS = {read, scan};

}  // namespace hw
