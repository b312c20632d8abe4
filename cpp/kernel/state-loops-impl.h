// The loops of kernel/state-loops.h, once per instruction set. Included by kernel/state-loops-<isa>.cpp, which defines
// HW_STATE_LOOPS, `width` (of its vectors), `tile_vecs` (vectors of a row of a register tile), Vec and sum(Vec).
// Nothing of std::, see kernel/task.h.
#pragma once

#include "kernel/state-loops.h"

#if defined(__clang__)
#define HW_STATE_UNROLL _Pragma("unroll")
#else
#define HW_STATE_UNROLL _Pragma("GCC unroll 8")  // small loops over registers: all of it
#endif

namespace hw {
namespace {

constexpr int tile_rows = 4;   // of the register tile
constexpr int64_t lanes = 32;  // partial sums of a product: vectors of them, and a better sum than one after the other

typedef float LooseVec __attribute__((vector_size(width * 4), aligned(4), may_alias));

inline Vec load(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<LooseVec*>(p) = v; }

// Products of decays would become denormal numbers, which are slow, and stay that.
inline float flushed(float x) { return (x < 0 ? -x : x) < 1e-30f ? 0.0f : x; }

// ----------------------------------------------------------------------------------------------------------- products

// `rows` rows and `vecs` vectors of the result, which stay in registers.
template <int rows, int vecs>
void multiply_tile(int64_t k, Matrix a, const float* b, int64_t b_row, float* out, int64_t out_row) {
    Vec sums[rows][vecs];
    HW_STATE_UNROLL
    for (int i = 0; i < rows; i++) {
        HW_STATE_UNROLL
        for (int j = 0; j < vecs; j++) sums[i][j] = load(out + i * out_row + j * width);
    }
    for (int64_t l = 0; l < k; l++) {
        HW_STATE_UNROLL
        for (int i = 0; i < rows; i++) {
            const float factor = a.data[i * a.row + l * a.column];
            HW_STATE_UNROLL
            for (int j = 0; j < vecs; j++) sums[i][j] += factor * load(b + l * b_row + j * width);
        }
    }
    HW_STATE_UNROLL
    for (int i = 0; i < rows; i++) {
        HW_STATE_UNROLL
        for (int j = 0; j < vecs; j++) store(out + i * out_row + j * width, sums[i][j]);
    }
}

// m rows, a multiple of tile_rows, of `vecs` vectors of columns.
template <int vecs>
void multiply_panel(int64_t m, int64_t k, Matrix a, const float* b, int64_t b_row, float* out, int64_t out_row) {
    for (int64_t i = 0; i < m; i += tile_rows) {
        multiply_tile<tile_rows, vecs>(k, {a.data + i * a.row, a.row, a.column}, b, b_row, out + i * out_row, out_row);
    }
}

// Fewer rows than a tile has, from column j on, in tiles of `vecs` vectors, then in smaller ones: as many sums as other
// tiles have, or each addition would wait for the one before.
template <int rows, int vecs>
void multiply_rows(int64_t j, int64_t n, int64_t k, Matrix a, const float* b, int64_t b_row, float* out,
                   int64_t out_row) {
    for (; j + vecs * width <= n; j += vecs * width) {
        multiply_tile<rows, vecs>(k, a, b + j, b_row, out + j, out_row);
    }
    if constexpr (vecs > 1) multiply_rows<rows, vecs / 2>(j, n, k, a, b, b_row, out, out_row);
}

void multiply(int64_t m, int64_t n, int64_t k, Matrix a, const float* b, int64_t b_row, float* out, int64_t out_row) {
    const int64_t in_tiles = m - m % tile_rows;
    int64_t j = 0;
    for (; j + tile_vecs * width <= n; j += tile_vecs * width) {
        multiply_panel<tile_vecs>(in_tiles, k, a, b + j, b_row, out + j, out_row);
    }
    for (; j + width <= n; j += width) {
        multiply_panel<1>(in_tiles, k, a, b + j, b_row, out + j, out_row);
    }
    const Matrix rest_of_a = {a.data + in_tiles * a.row, a.row, a.column};
    float* rest_of_out = out + in_tiles * out_row;
    if (m - in_tiles == 1) multiply_rows<1, 4 * tile_vecs>(0, n, k, rest_of_a, b, b_row, rest_of_out, out_row);
    if (m - in_tiles == 2) multiply_rows<2, 2 * tile_vecs>(0, n, k, rest_of_a, b, b_row, rest_of_out, out_row);
    if (m - in_tiles == 3) multiply_rows<3, tile_vecs>(0, n, k, rest_of_a, b, b_row, rest_of_out, out_row);
    for (int64_t i = 0; i < m && j < n; i++) {
        for (int64_t l = 0; l < k; l++) {
            const float factor = a.data[i * a.row + l * a.column];
            for (int64_t rest = j; rest < n; rest++) out[i * out_row + rest] += factor * b[l * b_row + rest];
        }
    }
}

void scale(float* x, int64_t n, float factor) {
    for (int64_t i = 0; i < n; i++) x[i] = flushed(x[i] * factor);
}

// ------------------------------------------------------------------------------------------------------------ vectors

inline float total(float* sums) {
    for (int64_t half = lanes / 2; half > 0; half /= 2) {
        for (int64_t l = 0; l < half; l++) sums[l] += sums[l + half];
    }
    return sums[0];
}

inline float dot(const float* a, const float* b, int64_t d) {
    float sums[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= d; i += lanes) {
        for (int64_t l = 0; l < lanes; l++) sums[l] += a[i + l] * b[i + l];
    }
    for (int64_t l = 0; i + l < d; l++) sums[l] += a[i + l] * b[i + l];
    return total(sums);
}

inline void add(float* y, float s, const float* x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += s * x[i];
}

inline void decay(float* x, const float* decays, int64_t n_decay, int64_t n) {
    if (n_decay == 1) return scale(x, n, decays[0]);
    for (int64_t i = 0; i < n; i++) x[i] = flushed(x[i] * decays[i]);
}

// ------------------------------------------------------------------------------------------------- states as columns

void read(const float* columns, int64_t n, int64_t d, const float* x, float* reads) {
    for (int64_t j = 0; j < n; j++) reads[j] = dot(columns + j * d, x, d);
}

void scan(float* columns, int64_t n, int64_t d, const float* decays, int64_t n_decay, const float* x, const float* b,
          const float* c, float* reads) {
    for (int64_t j = 0; j < n; j++, columns += d) {
        if (n_decay == 1) {
            for (int64_t i = 0; i < d; i++) columns[i] = decays[0] * columns[i] + x[j] * b[i];
        } else {
            for (int64_t i = 0; i < d; i++) columns[i] = decays[i] * columns[i] + x[j] * b[i];
        }
        reads[j] = dot(columns, c, d);
    }
}

// ---------------------------------------------------------------------------------------------------- runs, backwards

// Keys and values of `vecs` vectors, one decay: queries and reads stay in registers.
template <int vecs>
void delta_back_of(const TokenRows& t, float* x, float* y) {
    Vec query[vecs];
    Vec reads[vecs];
    HW_STATE_UNROLL
    for (int j = 0; j < vecs; j++) query[j] = load(x + j * width), reads[j] = load(y + j * width);
    float left = 1.0f;
    for (int64_t token = t.n; token-- > 0 && left != 0.0f;) {
        const float* k = t.rows + token * t.stride;
        const float* v = k + vecs * width;
        Vec even = load(k) * query[0];
        Vec odd = load(k + width) * query[1];
        HW_STATE_UNROLL
        for (int j = 2; j < vecs; j += 2) {
            even += load(k + j * width) * query[j];
            odd += load(k + (j + 1) * width) * query[j + 1];
        }
        const float decay = v[vecs * width];
        const float s = v[vecs * width + 1] * sum(even + odd);
        left = flushed(left * decay);
        HW_STATE_UNROLL
        for (int j = 0; j < vecs; j++) {
            reads[j] += s * load(v + j * width);
            query[j] = decay * query[j] - (decay * s) * load(k + j * width);
        }
    }
    HW_STATE_UNROLL
    for (int j = 0; j < vecs; j++)
        store(x + j * width, left != 0.0f ? query[j] : Vec{}), store(y + j * width, reads[j]);
}

void delta_back(const TokenRows& t, float* x, float* y) {
    if (width >= 8 && t.d_k == t.d_v && t.n_decay == 1 && (t.d_k == 64 || t.d_k == 128)) {
        return t.d_k == 64 ? delta_back_of<64 / width>(t, x, y) : delta_back_of<128 / width>(t, x, y);
    }
    for (int64_t token = t.n; token-- > 0;) {
        const float* k = t.rows + token * t.stride;
        const float* v = k + t.d_k;
        const float* decays = v + t.d_v;
        const float s = decays[t.n_decay] * dot(k, x, t.d_k);
        add(y, s, v, t.d_v);
        add(x, -s, k, t.d_k);
        decay(x, decays, t.n_decay, t.d_k);
    }
}

void diagonal_back(const TokenRows& t, float* x, float* y) {
    for (int64_t token = t.n; token-- > 0;) {
        const float* b = t.rows + token * t.stride;
        const float* value = b + t.d_k;
        add(y, dot(b, x, t.d_k), value, t.d_v);
        decay(x, value + t.d_v, t.n_decay, t.d_k);
    }
}

// As delta_back_of().
template <int vecs>
void wkv7_back_of(const TokenRows& t, float* x, float* y) {
    Vec query[vecs];
    Vec reads[vecs];
    HW_STATE_UNROLL
    for (int j = 0; j < vecs; j++) query[j] = load(x + j * width), reads[j] = load(y + j * width);
    for (int64_t token = t.n; token-- > 0;) {
        const float* k = t.rows + token * t.stride;
        const float* v = k + vecs * width;
        const float* decays = v + vecs * width;
        const float* a = decays + vecs * width;
        const float* b = a + vecs * width;
        Vec by_key = load(k) * query[0];
        Vec by_b = load(b) * query[0];
        HW_STATE_UNROLL
        for (int j = 1; j < vecs; j++) {
            by_key += load(k + j * width) * query[j];
            by_b += load(b + j * width) * query[j];
        }
        const float s = sum(by_key);
        const float put_back = sum(by_b);
        HW_STATE_UNROLL
        for (int j = 0; j < vecs; j++) {
            reads[j] += s * load(v + j * width);
            query[j] = load(decays + j * width) * query[j] + put_back * load(a + j * width);
        }
    }
    HW_STATE_UNROLL
    for (int j = 0; j < vecs; j++) store(x + j * width, query[j]), store(y + j * width, reads[j]);
    for (int64_t i = 0; i < t.d_k; i++) x[i] = flushed(x[i]);
}

void wkv7_back(const TokenRows& t, float* x, float* y) {
    if (width >= 8 && t.d_k == 64 && t.d_v == 64) return wkv7_back_of<64 / width>(t, x, y);
    for (int64_t token = t.n; token-- > 0;) {
        const float* k = t.rows + token * t.stride;
        const float* v = k + t.d_k;
        const float* decays = v + t.d_v;
        const float* a = decays + t.d_k;
        const float put_back = dot(a + t.d_k, x, t.d_k);
        add(y, dot(k, x, t.d_k), v, t.d_v);
        for (int64_t i = 0; i < t.d_k; i++) x[i] = flushed(decays[i] * x[i] + put_back * a[i]);
    }
}

}  // namespace

extern const StateLoops HW_STATE_LOOPS;
const StateLoops HW_STATE_LOOPS = {multiply, scale, read, scan, delta_back, diagonal_back, wkv7_back};

}  // namespace hw
