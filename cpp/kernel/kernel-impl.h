// The attention kernel, once per instruction set. Included by kernel/<isa>.cpp, which defines before:
//   width, Vec, load_f16, sum(Vec); max_vecs, tile_height(vecs), dot_rows, dot_sums: how registers are used;
//   HW_ATTN_ISA: its name.
// Everything is in an anonymous namespace, and nothing of std:: is called: no function compiled here for a wide
// instruction set may be linked into the rest of the program.
//
// Online softmax over tiles of tile_keys keys. Two forms of the same steps:
//   Lanes: a query in each SIMD lane. S^T = K Q^T and O^T += V^T P^T are the same register-tiled product, with one
//          operand broadcast; softmax runs down the keys without a horizontal sum. For many rows: bound by arithmetic.
//   Dots:  vectors along the head size, f16 converted on the fly. For few rows: bound by memory.
#pragma once

#include "kernel/task.h"
#include "kernel/tile.h"

namespace hw {
namespace {

// C (m, lanes) = A (m, k) B (k, lanes); A is read element by element, B and C by vectors of queries.
// scores: A = K (key, d) by rows, C starts at zero.  values: A = V^T, C is first multiplied with rescale (lanes).
enum class Product { scores, values };

constexpr int ahead_step = 32;  // bytes to fetch ahead in a step along k: about what memory delivers meanwhile

template <Product product, int M, int N>
inline void multiply_tile(float* c, const float* a, int a_stride, const float* b, int n_k, const float* rescale,
                          const char* ahead) {
    constexpr int lanes = N * width;
    Vec acc[M][N];
    HW_UNROLL
    for (int m = 0; m < M; ++m) {
        HW_UNROLL
        for (int n = 0; n < N; ++n) {
            acc[m][n] = Vec{};
            if (product == Product::values) acc[m][n] = load(c + m * lanes + n * width) * load(rescale + n * width);
        }
    }
    for (int k = 0; k < n_k; ++k) {
        __builtin_prefetch(ahead + k * ahead_step, 0, 2);
        HW_UNROLL
        for (int m = 0; m < M; ++m) {
            const float x = product == Product::scores ? a[m * a_stride + k] : a[k * a_stride + m];
            HW_UNROLL
            for (int n = 0; n < N; ++n) acc[m][n] += broadcast(x) * load(b + k * lanes + n * width);
        }
    }
    HW_UNROLL
    for (int m = 0; m < M; ++m) {
        HW_UNROLL
        for (int n = 0; n < N; ++n) store(c + m * lanes + n * width, acc[m][n]);
    }
}

template <Product product, int M, int N>
void multiply_rest(int n_m, float* c, const float* a, int a_stride, const float* b, int n_k, const float* rescale,
                   const char* ahead) {
    if constexpr (M > 0) {
        if (n_m == M) return multiply_tile<product, M, N>(c, a, a_stride, b, n_k, rescale, ahead);
        multiply_rest<product, M - 1, N>(n_m, c, a, a_stride, b, n_k, rescale, ahead);
    }
}

template <Product product, int N>
void multiply(int n_m, float* c, const float* a, int a_stride, const float* b, int n_k, const float* rescale,
              Ahead ahead) {
    constexpr int height = tile_height(N);
    for (; n_m >= height; n_m -= height) {
        multiply_tile<product, height, N>(c, a, a_stride, b, n_k, rescale, ahead.take(n_k * ahead_step, b));
        c += height * N * width;
        a += product == Product::scores ? height * a_stride : height;
    }
    multiply_rest<product, height - 1, N>(n_m, c, a, a_stride, b, n_k, rescale, ahead.take(n_k * ahead_step, b));
}

// ------------------------------------------------------------------------------------------------------------- lanes

// N vectors of queries, one row a lane. Spare lanes hold zeros and see everything: harmless, and they mask nothing.
template <int N>
struct Lanes {
    static constexpr int n_rows = N * width;

    explicit Lanes(const Job& a_job) : job(a_job), memory(a_job.memory) {
        memory.reset(n_rows, job.shape.d_k, job.shape.d_v);
    }

    // memory.q: (lanes, d_k)
    void set_query(int row, const float* query) {
        for (int d = 0; d < job.shape.d_k; ++d) memory.q[d * n_rows + row] = query[d];
    }

    void attend(const Tile& tile, const Tile& next) {
        const AttnCache &k = job.tensors.k, &v = job.tensors.v;
        const int d_k = job.shape.d_k, d_v = job.shape.d_v;
        const FloatRows keys = float_rows(k, tile, tile.k, d_k, false, memory.cells, false);
        const Ahead values_ahead = ahead_of(tile.v, v, tile.n, d_v);
        multiply<Product::scores, N>(tile.n, memory.s, keys.data, keys.stride, memory.q, d_k, nullptr, values_ahead);
        softmax(tile);
        const FloatRows values = float_rows(v, tile, tile.v, d_v, false, memory.cells, true);
        const Ahead keys_ahead = ahead_of(next.k, k, next.n, d_k);
        multiply<Product::values, N>(d_v, memory.o, values.data, values.stride, memory.s, tile.n, memory.rescale,
                                     keys_ahead);
    }

    // memory.s: (lanes, keys), from scores to exp(score - largest)
    void softmax(const Tile& tile) {
        const bool plain = job.plain_scores && !tile.masked;
        for (int lane = 0; lane < n_rows; lane += width) {
            float* s = memory.s + lane;
            const Vec before = load(memory.largest + lane);
            Vec largest = before;
            const Limits limits = memory.limits(lane);
            for (int i = 0; i < tile.n; ++i) {
                Vec x = load(s + i * n_rows);
                if (!plain) store(s + i * n_rows, x = adjust(job, x, broadcast(tile.key(i)), limits));
                largest = max(largest, x);
            }
            Vec total = {};
            for (int i = 0; i < tile.n; ++i) {
                const Vec p = exp(load(s + i * n_rows) - largest);
                store(s + i * n_rows, p);
                total += p;
            }
            const Vec rescale = exp(before - largest);
            store(memory.rescale + lane, rescale);
            store(memory.largest + lane, largest);
            store(memory.total + lane, load(memory.total + lane) * rescale + total);
        }
    }

    void finish(float* partial) const {
        for (int r = 0; r < job.task.n_rows; ++r) {
            *partial++ = memory.largest[r];
            *partial++ = memory.total[r];
            for (int d = 0; d < job.shape.d_v; ++d) *partial++ = memory.o[d * n_rows + r];  // memory.o: (lanes, d_v)
        }
    }

    const Job& job;
    const Memory& memory;
};

// -------------------------------------------------------------------------------------------------------------- dots

// s (keys, R) = dot(k, q); q: (d_k padded, R)
template <int J, int R, class T>
inline void dot_keys(float* s, const float* q, const char* k, size_t stride, int d_padded) {
    Vec acc[J][R] = {};
    for (int d = 0; d < d_padded; d += width) {
        HW_UNROLL
        for (int j = 0; j < J; ++j) {
            const Vec x = load(reinterpret_cast<const T*>(k + static_cast<size_t>(j) * stride) + d);
            HW_UNROLL
            for (int r = 0; r < R; ++r) acc[j][r] += x * load(q + r * d_padded + d);
        }
    }
    HW_UNROLL
    for (int j = 0; j < J; ++j) {
        HW_UNROLL
        for (int r = 0; r < R; ++r) s[r * tile_keys + j] = sum(acc[j][r]);
    }
}

// o (C vectors, R) = o * rescale + p (keys, R) v (C vectors, keys)
template <int C, int R, class T>
inline void add_values(float* o, const float* rescale, const float* p, const char* v, size_t stride, int n,
                       int d_padded) {
    Vec acc[R][C];
    HW_UNROLL
    for (int r = 0; r < R; ++r) {
        HW_UNROLL
        for (int c = 0; c < C; ++c) acc[r][c] = load(o + r * d_padded + c * width) * broadcast(rescale[r]);
    }
    for (int i = 0; i < n; ++i, v += stride) {
        HW_UNROLL
        for (int c = 0; c < C; ++c) {
            const Vec x = load(reinterpret_cast<const T*>(v) + c * width);
            HW_UNROLL
            for (int r = 0; r < R; ++r) acc[r][c] += x * broadcast(p[r * tile_keys + i]);
        }
    }
    HW_UNROLL
    for (int r = 0; r < R; ++r) {
        HW_UNROLL
        for (int c = 0; c < C; ++c) store(o + r * d_padded + c * width, acc[r][c]);
    }
}

template <int R>
struct Dots {
    static constexpr int n_rows = R;
    static constexpr int at_once = dot_sums / R < 8 ? dot_sums / R : 8;  // keys, or vectors of values

    explicit Dots(const Job& a_job)
        : job(a_job), memory(a_job.memory), d_k(padded(a_job.shape.d_k)), d_v(padded(a_job.shape.d_v)) {
        memory.reset(n_rows, d_k, d_v);
    }

    // memory.q: (d_k padded, rows)
    void set_query(int row, const float* query) {
        for (int d = 0; d < job.shape.d_k; ++d) memory.q[row * d_k + d] = query[d];
    }

    void attend(const Tile& tile, const Tile& next) {
        const AttnCache &k = job.tensors.k, &v = job.tensors.v;
        const AheadRows values_ahead = {tile.v, v, tile.n, job.shape.d_v};
        const AheadRows keys_ahead = {next.k, k, next.n, job.shape.d_k};
        if (k.type == GGML_TYPE_F16 && job.shape.d_k == d_k) {
            scores<ggml_fp16_t>(tile.k, k.nb_cell, tile.n, values_ahead);
        } else {
            const FloatRows rows = float_rows(k, tile, tile.k, job.shape.d_k, true, memory.cells, false);
            scores<float>(reinterpret_cast<const char*>(rows.data), sizeof(float) * static_cast<size_t>(rows.stride),
                          tile.n, values_ahead);
        }
        softmax(tile);
        if (v.type == GGML_TYPE_F16 && job.shape.d_v == d_v && !tile.masked) {
            values<ggml_fp16_t>(tile.v, v.nb_cell, tile.n, keys_ahead);
        } else {
            const FloatRows rows = float_rows(v, tile, tile.v, job.shape.d_v, true, memory.cells, true);
            values<float>(reinterpret_cast<const char*>(rows.data), sizeof(float) * static_cast<size_t>(rows.stride),
                          tile.n, keys_ahead);
        }
    }

    template <class T>
    void scores(const char* k, size_t stride, int n, const AheadRows& ahead) {
        int i = 0;
        for (; i + at_once <= n; i += at_once) {
            ahead.fetch(i, i + at_once);
            dot_keys<at_once, R, T>(memory.s + i, memory.q, k + static_cast<size_t>(i) * stride, stride, d_k);
        }
        ahead.fetch(i, n);
        for (; i < n; ++i) dot_keys<1, R, T>(memory.s + i, memory.q, k + static_cast<size_t>(i) * stride, stride, d_k);
    }

    template <class T>
    void values(const char* v, size_t stride, int n, const AheadRows& ahead) {
        int d = 0;
        for (; d + at_once * width <= d_v; d += at_once * width) {
            ahead.fetch(ahead.n * d / d_v, ahead.n * (d + at_once * width) / d_v);
            const char* column = v + static_cast<size_t>(d) * sizeof(T);
            add_values<at_once, R, T>(memory.o + d, memory.rescale, memory.s, column, stride, n, d_v);
        }
        ahead.fetch(ahead.n * d / d_v, ahead.n);
        for (; d < d_v; d += width) {
            const char* column = v + static_cast<size_t>(d) * sizeof(T);
            add_values<1, R, T>(memory.o + d, memory.rescale, memory.s, column, stride, n, d_v);
        }
    }

    // memory.s: (tile_keys, rows), from scores to exp(score - largest); keys beyond tile.n become 0
    void softmax(const Tile& tile) {
        for (int r = 0; r < n_rows; ++r) {
            float* s = memory.s + r * tile_keys;
            if (!job.plain_scores || tile.masked) {
                const Limits limits = memory.limit(r);
                for (int i = 0; i < tile.n; i += width) store(s + i, adjust(job, load(s + i), tile.keys(i), limits));
            }
            fill(s + tile.n, -infinity, tile_keys - tile.n);
            Vec most = broadcast(memory.largest[r]);
            for (int i = 0; i < tile_keys; i += width) most = max(most, load(s + i));
            float largest = most[0];
            for (int i = 1; i < width; ++i) largest = most[i] > largest ? most[i] : largest;
            Vec total = {};
            for (int i = 0; i < tile_keys; i += width) {
                const Vec p = exp(load(s + i) - broadcast(largest));
                store(s + i, p);
                total += p;
            }
            const float rescale = exp(broadcast(memory.largest[r] - largest))[0];
            memory.rescale[r] = rescale;
            memory.largest[r] = largest;
            memory.total[r] = memory.total[r] * rescale + sum(total);
        }
    }

    void finish(float* partial) const {
        for (int r = 0; r < job.task.n_rows; ++r) {
            *partial++ = memory.largest[r];
            *partial++ = memory.total[r];
            for (int d = 0; d < job.shape.d_v; ++d) *partial++ = memory.o[r * d_v + d];  // memory.o: (d_v padded, rows)
        }
    }

    const Job& job;
    const Memory& memory;
    const int d_k, d_v;
};

// -------------------------------------------------------------------------------------------------------------- task

// Goes through the tiles of keys that the rows of the task see.
template <class Form>
void attend_all(const Job& job, float* partial) {
    Form form(job);
    Tiles tiles(job);
    const AttnSegment* segment = nullptr;
    for (Tile tile = tiles.take(); tile.n;) {
        if (tile.segment != segment) {
            segment = tile.segment;
            for (int row = 0; row < Form::n_rows; ++row) {
                set_limits(job, *segment, row);
                if (row < job.task.n_rows) form.set_query(row, rotated_query(job, *segment, row));
            }
        }
        const Tile next = tiles.take();
        form.attend(tile, next.n ? next : first_of_later(job));
        tile = next;
    }
    form.finish(partial);
}

template <int N>
void attend_lanes(const Job& job, float* partial) {
    if constexpr (N < max_vecs) {
        if (job.task.n_rows > N * width) return attend_lanes<N + 1>(job, partial);
    }
    attend_all<Lanes<N>>(job, partial);
}

void run(const AttnShape& shape, const AttnTensors& tensors, const AttnTask& task, float* scratch, float* partial) {
    const Job job(shape, tensors, task, scratch);
    const int n = task.n_rows;
    if (n > dot_rows) return attend_lanes<1>(job, partial);
    if (n == 1) return attend_all<Dots<1>>(job, partial);
    if (n == 2) return attend_all<Dots<2>>(job, partial);
    if (n <= 4) return attend_all<Dots<4>>(job, partial);
    if constexpr (dot_rows > 4) attend_all<Dots<8>>(job, partial);
}

}  // namespace

#define HW_JOIN_(a, b) a##b
#define HW_JOIN(a, b) HW_JOIN_(a, b)
#define HW_TEXT_(a) #a
#define HW_TEXT(a) HW_TEXT_(a)

extern const AttnIsa HW_JOIN(attn_isa_, HW_ATTN_ISA);
constexpr AttnIsa HW_JOIN(attn_isa_, HW_ATTN_ISA) = {HW_TEXT(HW_ATTN_ISA), width, Memory::max_rows, tile_keys,
                                                     scratch_floats,       run};

}  // namespace hw
