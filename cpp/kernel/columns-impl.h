// The loops of kernel/columns.h, once per instruction set. Included by kernel/columns-<isa>.cpp, which defines
// HW_COLUMNS. Written so that compilers make vectors of them; nothing of std::, see kernel/task.h.
#pragma once

#include "kernel/columns.h"

namespace hw {
namespace {

constexpr int64_t lanes = 32;  // partial sums of a product: vectors of them, and a better sum than one after the other

// What is so small is 0: products of decays would become denormal numbers, which are slow, and stay that.
inline float flushed(float x) { return (x < 0 ? -x : x) < 1e-30f ? 0.0f : x; }

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

// c <- flushed(decays c), and c . k
inline float decay(float* c, const float* decays, const float* k, int64_t d) {
    float sums[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= d; i += lanes) {
        for (int64_t l = 0; l < lanes; l++) {
            c[i + l] = flushed(c[i + l] * decays[i + l]);
            sums[l] += c[i + l] * k[i + l];
        }
    }
    for (int64_t l = 0; i + l < d; l++) {
        c[i + l] = flushed(c[i + l] * decays[i + l]);
        sums[l] += c[i + l] * k[i + l];
    }
    return total(sums);
}

// c <- c + s k, and c . q
inline float change(float* c, float s, const float* k, const float* q, int64_t d) {
    float sums[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= d; i += lanes) {
        for (int64_t l = 0; l < lanes; l++) {
            c[i + l] += s * k[i + l];
            sums[l] += c[i + l] * q[i + l];
        }
    }
    for (int64_t l = 0; i + l < d; l++) {
        c[i + l] += s * k[i + l];
        sums[l] += c[i + l] * q[i + l];
    }
    return total(sums);
}

void step(float* columns, int64_t n, int64_t d, const float* decays, const float* k, const float* q,
          const float* values, int64_t n_values, float beta, float* reads) {
    for (int64_t j = 0; j < n; j++, columns += d) {
        const float value = j < n_values ? values[j] : 0.0f;
        const float is = decay(columns, decays, k, d);
        reads[j] = change(columns, beta * (value - is), k, q, d);
    }
}

void read(const float* columns, int64_t n, int64_t d, const float* x, float* reads) {
    for (int64_t j = 0; j < n; j++) {
        reads[j] = dot(columns + j * d, x, d);
    }
}

void add(const float* columns, int64_t n, int64_t d, const float* x, float* y) {
    for (int64_t j = 0; j < n; j++, columns += d) {
        for (int64_t i = 0; i < d; i++) {
            y[i] += x[j] * columns[i];
        }
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

// c <- flushed(decays c + s b + value k), and c . r
inline float turn(float* c, const float* decays, float s, const float* b, float value, const float* k, const float* r,
                  int64_t d) {
    float sums[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= d; i += lanes) {
        for (int64_t l = 0; l < lanes; l++) {
            c[i + l] = flushed(decays[i + l] * c[i + l] + s * b[i + l] + value * k[i + l]);
            sums[l] += c[i + l] * r[i + l];
        }
    }
    for (int64_t l = 0; i + l < d; l++) {
        c[i + l] = flushed(decays[i + l] * c[i + l] + s * b[i + l] + value * k[i + l]);
        sums[l] += c[i + l] * r[i + l];
    }
    return total(sums);
}

void wkv7(float* columns, int64_t n, int64_t d, const float* decays, const float* a, const float* b, const float* k,
          const float* r, const float* values, int64_t n_values, float* reads) {
    for (int64_t j = 0; j < n; j++, columns += d) {
        reads[j] = turn(columns, decays, dot(columns, a, d), b, j < n_values ? values[j] : 0.0f, k, r, d);
    }
}

}  // namespace

extern const ColumnLoops HW_COLUMNS;
const ColumnLoops HW_COLUMNS = {step, read, add, scan, wkv7};

}  // namespace hw
