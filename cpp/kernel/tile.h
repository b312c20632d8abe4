// What both forms of the attention kernel share: vector helpers, scratch memory, query rotation, tiles of keys.
// Included by kernel/kernel-impl.h only; the same rules apply.
#pragma once

#include "ggml.h"
#include "kernel/task.h"

#if defined(__clang__)
#define HW_UNROLL _Pragma("unroll")
#else
#define HW_UNROLL _Pragma("GCC unroll 16")  // small loops over registers: all of it
#endif

namespace hw {
namespace {

constexpr int tile_keys = 48;  // a multiple of the heights of the register tiles and of every width
constexpr float infinity = __builtin_inff();
constexpr float lowest = -3.402823466e38f;  // largest score so far of a row that saw nothing; -inf - lowest is no NaN

// ----------------------------------------------------------------------------------------------------------- vectors

typedef float LooseVec __attribute__((vector_size(width * 4), aligned(4), may_alias));
typedef uint32_t BitVec __attribute__((vector_size(width * 4)));

inline Vec load(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }
inline Vec load(const ggml_fp16_t* p) { return load_f16(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<LooseVec*>(p) = v; }
inline Vec broadcast(float x) { return x - Vec{}; }
inline Vec max(Vec a, Vec b) { return a > b ? a : b; }

// exp(x) for x <= 88, to 1e-7 of its value; 0 below -80 (which keeps products with it out of the slow denormals).
inline Vec exp(Vec x) {
    constexpr float shifter = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
    const Vec shifted = x * 1.44269504f + shifter;
    const Vec n = shifted - shifter;
    const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // |r| <= ln(2) / 2
    Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * r) * r + (r + 1.0f);
    const Vec power = (Vec)((BitVec)p + ((BitVec)shifted << 23));  // * 2^n
    return x < -80.0f ? Vec{} : power;
}

// To about 1e-7, absolute: as accurate as scores need.
inline Vec tanh(Vec x) {
    const Vec bounded = x > 10.0f ? broadcast(10.0f) : x < -10.0f ? broadcast(-10.0f) : x;
    return 1.0f - 2.0f / (exp(2.0f * bounded) + 1.0f);
}

inline void fill(float* p, float x, int n) {
    for (int i = 0; i < n; ++i) p[i] = x;
}

inline int padded(int n) { return (n + width - 1) / width * width; }

// ------------------------------------------------------------------------------------------------------------ memory

// Per row: which keys it sees, and its ALiBi line slope * (key - distance).
struct Limits {
    Vec first, last, slope, distance;
};

// The scratch of one thread. Forms decide on the order of axes.
struct Memory {
    static constexpr int max_rows = width * max_vecs;

    Memory(const AttnShape& shape, float* p) {
        const int d_k = padded(shape.d_k), d_v = padded(shape.d_v);
        const auto take = [&p](int n) { return p += n, p - n; };
        q = take(max_rows * d_k), o = take(max_rows * d_v), s = take(max_rows * tile_keys);
        cells = take(tile_keys * (d_k > d_v ? d_k : d_v)), row = take(d_k);
        first = take(max_rows), last = take(max_rows), slope = take(max_rows), distance = take(max_rows);
        largest = take(max_rows), total = take(max_rows), rescale = take(max_rows);
    }

    // Nothing seen yet; spare rows have queries of zeros.
    void reset(int n_rows, int q_size, int o_size) const {
        fill(q, 0.0f, n_rows * q_size);
        fill(o, 0.0f, n_rows * o_size);
        fill(total, 0.0f, n_rows);
        fill(largest, lowest, n_rows);
    }

    Limits limits(int lane) const {
        return {load(first + lane), load(last + lane), load(slope + lane), load(distance + lane)};
    }
    Limits limit(int r) const {
        return {broadcast(first[r]), broadcast(last[r]), broadcast(slope[r]), broadcast(distance[r])};
    }

    float *q, *o, *s;  // queries, outputs, scores
    float* cells;  // [tile_keys][d padded]: a tile of keys, then of values, as floats (one memory: level 1 is small)
    float* row;    // [d_k]: one query
    float *first, *last, *slope, *distance;  // [max_rows]: see Limits
    float *largest, *total, *rescale;        // [max_rows]: state of the softmax; what the last tile scales sums with
};

size_t scratch_floats(const AttnShape& shape) {
    const int d_k = padded(shape.d_k), d_v = padded(shape.d_v);
    const int tiles = tile_keys * ((d_k > d_v ? d_k : d_v) + Memory::max_rows);
    return static_cast<size_t>(tiles + Memory::max_rows * (d_k + d_v + 7) + d_k);
}

// A task with all that its steps need.
struct Job {
    Job(const AttnShape& s, const AttnTensors& t, const AttnTask& a_task, float* scratch)
        : shape(s), tensors(t), task(a_task), memory(s, scratch), group(s.n_head / s.n_head_kv) {
        softcap = t.softcap > 0 ? t.softcap : 0;
        scale = softcap > 0 ? t.scale / softcap : t.scale;
        plain_scores = softcap == 0 && !(t.max_bias > 0);
    }

    int head(int row) const { return task.kv_head * group + (task.first_row + row) % group; }
    const AttnPair& pair(const AttnSegment& segment, int row) const {
        return segment.pairs[(task.first_row + row) / group];
    }
    int first_pair() const { return task.first_row / group; }
    int last_pair() const { return (task.first_row + task.n_rows - 1) / group; }

    const AttnShape& shape;
    const AttnTensors& tensors;
    const AttnTask& task;
    const Memory memory;
    const int group;
    float softcap, scale;
    bool plain_scores;  // a score is just its dot product
};

inline Vec adjust(const Job& job, Vec s, Vec key, const Limits& limits) {
    if (job.softcap > 0) s = job.softcap * tanh(s);
    s += limits.slope * (key - limits.distance);
    return key >= limits.first ? (key < limits.last ? s : broadcast(-infinity)) : broadcast(-infinity);
}

// ----------------------------------------------------------------------------------------------------------- queries

template <class T>
inline const T* at(const T* base, size_t bytes) {
    return reinterpret_cast<const T*>(reinterpret_cast<const char*>(base) + bytes);
}

// Spare rows see everything: they never make a tile a masked one.
void set_limits(const Job& job, const AttnSegment& segment, int row) {
    const Memory& memory = job.memory;
    const bool spare = row >= job.task.n_rows;
    memory.first[row] = spare ? 0.0f : static_cast<float>(job.pair(segment, row).first);
    memory.last[row] = spare ? infinity : static_cast<float>(job.pair(segment, row).last);
    memory.distance[row] = spare ? 0.0f : static_cast<float>(job.pair(segment, row).distance);
    const bool alibi = !spare && job.tensors.max_bias > 0;
    memory.slope[row] = alibi ? attn_slope(job.tensors.max_bias, job.shape.n_head, job.head(row)) : 0.0f;
}

// Multiplies each n numbers of a row by the orthonormal Hadamard matrix; n is a power of two that divides d.
void hadamard(float* row, int d, int n) {
    float scale = 1;  // in the end 1 / sqrt(n)
    for (int half = 1; half < n; half *= 2) {
        scale *= 0.70710678118654752f;
        for (int i = 0; i < d; i += 2 * half) {
            for (int j = i; j < i + half; ++j) {
                const float x = row[j], y = row[j + half];
                row[j] = x + y;
                row[j + half] = x - y;
            }
        }
    }
    for (int i = 0; i < d; ++i) row[i] *= scale;
}

// The query of a row, rotated for the segment's block and scaled: memory.row [d_k].
const float* rotated_query(const Job& job, const AttnSegment& segment, int row) {
    const AttnTensors& t = job.tensors;
    const AttnPair& pair = job.pair(segment, row);
    const size_t offset =
        static_cast<size_t>(pair.query) * t.q_nb_row + static_cast<size_t>(job.head(row)) * t.q_nb_head;
    const float* q = at(t.q, offset);
    float* out = job.memory.row;
    const int half = t.n_rot / 2, n_rot = t.rope == AttnRope::none ? 0 : t.n_rot;
    const float* table = n_rot ? at(t.angles, static_cast<size_t>(pair.angle) * t.angles_nb_row) : nullptr;
    if (t.rope == AttnRope::adjacent) {
        for (int i = 0; i < n_rot; i += 2) {
            const float x = q[i] * job.scale, y = q[i + 1] * job.scale, c = table[i], s = table[i + 1];
            out[i] = x * c - y * s;
            out[i + 1] = x * s + y * c;
        }
    } else if (t.rope == AttnRope::halves) {
        for (int i = 0; i < half; ++i) {
            const float x = q[i] * job.scale, y = q[i + half] * job.scale, c = table[i], s = table[i + half];
            out[i] = x * c - y * s;
            out[i + half] = x * s + y * c;
        }
    }
    for (int i = n_rot; i < job.shape.d_k; ++i) out[i] = q[i] * job.scale;
    if (t.hadamard > 0) hadamard(out, job.shape.d_k, t.hadamard);
    return out;
}

// ------------------------------------------------------------------------------------------------------ tiles of keys

// The keys of a segment that belong to the task; all rows see [all_first, all_last).
struct KeyRange {
    int begin, end;
    int all_first, all_last;
};

struct Tile {
    float key(int i) const { return static_cast<float>(begin + i); }
    Vec keys(int i) const {
        Vec out;
        for (int j = 0; j < width; ++j) out[j] = key(i + j);
        return out;
    }

    const AttnSegment* segment;
    int begin, n;            // keys of the block; n == 0: no tile
    const char *k, *v;       // row of the first key
    bool masked;             // some row does not see some key
    int n_seen;              // keys that some row sees
    bool unseen[tile_keys];  // of a masked tile
};

KeyRange seen_keys(const Job& job, const AttnSegment& segment) {
    KeyRange range = {segment.end, segment.begin, segment.begin, segment.end};
    for (int i = job.first_pair(); i <= job.last_pair(); ++i) {
        const AttnPair& pair = segment.pairs[i];
        range.begin = pair.first < range.begin ? pair.first : range.begin;
        range.end = pair.last > range.end ? pair.last : range.end;
        range.all_first = pair.first > range.all_first ? pair.first : range.all_first;
        range.all_last = pair.last < range.all_last ? pair.last : range.all_last;
    }
    const int64_t begin = job.task.key_begin - segment.offset + segment.begin;
    const int64_t end = job.task.key_end - segment.offset + segment.begin;
    if (begin > range.begin) range.begin = static_cast<int>(begin < range.end ? begin : range.end);
    if (end < range.end) range.end = static_cast<int>(end > range.begin ? end : range.begin);
    return range;
}

Tile make_tile(const Job& job, const AttnSegment& segment, const KeyRange& range, int key) {
    const AttnCache &k = job.tensors.k, &v = job.tensors.v;
    const auto cell = static_cast<size_t>(segment.cell + key), head = static_cast<size_t>(job.task.kv_head);
    Tile tile;
    tile.segment = &segment;
    tile.begin = key;
    tile.n_seen = tile.n = range.end - key < tile_keys ? range.end - key : tile_keys;
    tile.k = static_cast<const char*>(k.data) + cell * k.nb_cell + head * k.nb_head;
    tile.v = static_cast<const char*>(v.data) + cell * v.nb_cell + head * v.nb_head;
    tile.masked = key < range.all_first || key + tile.n > range.all_last;
    if (!tile.masked) return tile;
    for (int i = 0; i < tile.n; ++i) {
        tile.unseen[i] = true;
        for (int p = job.first_pair(); p <= job.last_pair() && tile.unseen[i]; ++p) {
            tile.unseen[i] = key + i < segment.pairs[p].first || key + i >= segment.pairs[p].last;
        }
        tile.n_seen -= tile.unseen[i];
    }
    return tile;
}

// The tiles of a task that some row sees, one after the other.
class Tiles {
  public:
    explicit Tiles(const Job& a_job) : job(a_job) {}

    // The next one; one of no keys if there is none.
    Tile take() {
        for (;;) {
            while (key >= range.end) {
                if (n_taken == job.task.n_segments) return Tile{};
                range = seen_keys(job, job.task.segments[n_taken++]);
                key = range.begin;
            }
            const Tile tile = make_tile(job, job.task.segments[n_taken - 1], range, key);
            key += tile_keys;
            if (tile.n_seen) return tile;
        }
    }

  private:
    const Job& job;
    KeyRange range = {};
    int n_taken = 0;  // segments
    int key = 0;
};

// The first tile of the task that this thread will probably have next.
Tile first_of_later(const Job& job) {
    if (!job.task.later) return Tile{};
    return Tiles(Job(job.shape, job.tensors, *job.task.later, nullptr)).take();
}

// Memory that will be read soon, to be fetched bit by bit while something else is computed.
struct Ahead {
    // The next piece, or something harmless if all has been fetched.
    const char* take(int bytes, const void* harmless) {
        const char* piece = next;
        next += bytes;
        return piece < end ? piece : static_cast<const char*>(harmless);
    }

    const char *next, *end;
};

// n rows of a cache. Rows that do not lie side by side are left to the hardware.
inline Ahead ahead_of(const char* rows, const AttnCache& cache, int n, int d) {
    const bool dense = cache.nb_cell <= sizeof(float) * static_cast<size_t>(d);
    return {rows, rows + (dense ? static_cast<size_t>(n) * cache.nb_cell : 0)};
}

// Rows of a cache that will be read soon, fetched a row at a time. Into the second level of the CPU's caches: the first
// waits for few lines at once.
struct AheadRows {
    AheadRows(const char* a_rows, const AttnCache& cache, int n_rows, int d)
        : rows(a_rows),
          stride(cache.nb_cell),
          n(n_rows),
          bytes(static_cast<int>(ggml_row_size(static_cast<ggml_type>(cache.type), d))) {}

    void fetch(int first, int last) const {
        for (int row = first; row < last && row < n; ++row) {
            const char* p = rows + static_cast<size_t>(row) * stride;
            for (int i = 0; i < bytes; i += 64) __builtin_prefetch(p + i, 0, 2);
        }
    }

    const char* rows;
    size_t stride;
    int n, bytes;
};

void convert_row(float* out, const char* row, int type, int d) {
    int i = 0;
    if (type == GGML_TYPE_F32) {
        __builtin_memcpy(out, row, sizeof(float) * static_cast<size_t>(d));
    } else if (type == GGML_TYPE_F16) {
        const auto* f16 = reinterpret_cast<const ggml_fp16_t*>(row);
        for (; i + width <= d; i += width) store(out + i, load(f16 + i));
        for (; i < d; ++i) out[i] = ggml_fp16_to_fp32(f16[i]);
    } else {
        ggml_get_type_traits(static_cast<ggml_type>(type))->to_float(row, out, d);
    }
}

// A tile of keys or values as floats.
struct FloatRows {
    const float* data;
    int stride;  // floats from row to row
};

// The tile's rows as floats: where they are if they are floats of whole vectors (or nobody needs whole ones), else in
// scratch. clean: rows that nobody sees come out as zeros, whatever they hold (0 * NaN would not be 0).
FloatRows float_rows(const AttnCache& cache, const Tile& tile, const char* rows, int d, bool whole, float* scratch,
                     bool clean) {
    clean = clean && tile.masked;
    if (cache.type == GGML_TYPE_F32 && !clean && (d == padded(d) || !whole)) {
        return {reinterpret_cast<const float*>(rows), static_cast<int>(cache.nb_cell / sizeof(float))};
    }
    for (int i = 0; i < tile.n; ++i) {
        float* out = scratch + i * padded(d);
        if (clean && tile.unseen[i]) {
            fill(out, 0.0f, padded(d));
        } else {
            convert_row(out, rows + static_cast<size_t>(i) * cache.nb_cell, cache.type, d);
            fill(out + d, 0.0f, padded(d) - d);
        }
    }
    return {scratch, padded(d)};
}

}  // namespace
}  // namespace hw
