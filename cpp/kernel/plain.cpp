// Concurrent attention as one would explain it: for every token and head, all scores, their softmax, the weighted sum.
#include <algorithm>
#include <cmath>
#include <vector>

#include "ggml.h"
#include "kernel/kernel.h"

namespace hw {

namespace {

using Row = std::vector<double>;

template <class T>
T* at(T* base, size_t bytes) {
    return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(base) + bytes);
}

// d floats of (cell, KV head).
Row cache_row(const AttnCache& cache, int64_t cell, int64_t head, int32_t d) {
    const void* source =
        at(cache.data, static_cast<size_t>(cell) * cache.nb_cell + static_cast<size_t>(head) * cache.nb_head);
    std::vector<float> row(static_cast<size_t>(d));
    const ggml_to_float_t to_float = ggml_get_type_traits(static_cast<ggml_type>(cache.type))->to_float;
    if (cache.type == GGML_TYPE_F32) {
        std::copy_n(static_cast<const float*>(source), d, row.begin());
    } else {
        to_float(source, row.data(), d);
    }
    return Row(row.begin(), row.end());
}

// The definition: each sign is the parity of the bits that row and column have in common.
Row times_hadamard(const Row& row, size_t n) {
    Row out(row.size(), 0.0);
    for (size_t i = 0; i < row.size(); ++i) {
        for (size_t j = 0; j < n; ++j) {
            double sign = 1;
            for (size_t both = (i % n) & j; both != 0; both &= both - 1) sign = -sign;
            out[i] += sign * row[i / n * n + j] / std::sqrt(static_cast<double>(n));
        }
    }
    return out;
}

Row rotated_query(const AttnTensors& t, const AttnPair& pair, int32_t head, int32_t d_k) {
    const float* q = at(t.q, static_cast<size_t>(pair.query) * t.q_nb_row + static_cast<size_t>(head) * t.q_nb_head);
    Row out(q, q + d_k);
    const int32_t n_rot = t.rope == AttnRope::none ? 0 : t.n_rot;
    const float* table = n_rot > 0 ? at(t.angles, static_cast<size_t>(pair.angle) * t.angles_nb_row) : nullptr;
    for (int32_t i = 0; i < n_rot / 2; ++i) {
        const bool adjacent = t.rope == AttnRope::adjacent;
        const int32_t i0 = adjacent ? 2 * i : i;
        const int32_t i1 = adjacent ? 2 * i + 1 : i + n_rot / 2;
        const double c = table[i0], s = table[i1];
        out[static_cast<size_t>(i0)] = q[i0] * c - q[i1] * s;
        out[static_cast<size_t>(i1)] = q[i0] * s + q[i1] * c;
    }
    return t.hadamard > 0 ? times_hadamard(out, static_cast<size_t>(t.hadamard)) : out;
}

double dot(const Row& a, const Row& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

struct Seen {
    double score;
    int64_t cell;
};

void attend(const AttnShape& shape, const AttnTensors& t, int32_t head, const std::vector<Seen>& seen, float* out) {
    const double sink = t.sinks ? static_cast<double>(t.sinks[head]) : -INFINITY;
    double largest = sink;
    for (const Seen& key : seen) largest = std::max(largest, key.score);
    double total = t.sinks ? std::exp(sink - largest) : 0;
    Row sum(static_cast<size_t>(shape.d_v), 0.0);
    for (const Seen& key : seen) {
        const double weight = std::exp(key.score - largest);
        const Row value = cache_row(t.v, key.cell, head / (shape.n_head / shape.n_head_kv), shape.d_v);
        for (size_t d = 0; d < sum.size(); ++d) sum[d] += weight * value[d];
        total += weight;
    }
    for (size_t d = 0; d < sum.size(); ++d) out[d] = seen.empty() ? 0.0f : static_cast<float>(sum[d] / total);
}

}  // namespace

float attn_slope(float max_bias, int32_t n_head, int32_t head) {
    const int32_t n = 1 << static_cast<int32_t>(std::floor(std::log2(n_head)));
    const float base = std::pow(2.0f, -max_bias / static_cast<float>(n));
    const float half = std::pow(2.0f, -max_bias / 2.0f / static_cast<float>(n));
    return head < n ? std::pow(base, static_cast<float>(head + 1))
                    : std::pow(half, static_cast<float>(2 * (head - n) + 1));
}

void attn_plain(const AttnShape& shape, const AttnBlock* blocks, int32_t n_blocks, const AttnPair* pairs,
                const AttnTensors& t) {
    for (int32_t token = 0; token < shape.n_tokens; ++token) {
        for (int32_t head = 0; head < shape.n_head; ++head) {
            const int32_t kv_head = head / (shape.n_head / shape.n_head_kv);
            const double slope = t.max_bias > 0 ? attn_slope(t.max_bias, shape.n_head, head) : 0;
            std::vector<Seen> seen;
            for (const AttnBlock* block = blocks; block < blocks + n_blocks; ++block) {
                for (int32_t i = block->first_pair; i < block->first_pair + block->n_pairs; ++i) {
                    if (pairs[i].token != token) continue;
                    const Row query = rotated_query(t, pairs[i], head, shape.d_k);
                    for (int64_t key = pairs[i].first; key < pairs[i].last; ++key) {
                        const Row k = cache_row(t.k, block->cell + key, kv_head, shape.d_k);
                        double score = t.scale * dot(query, k);
                        if (t.softcap > 0) score = t.softcap * std::tanh(score / t.softcap);
                        score -= slope * static_cast<double>(pairs[i].distance - key);
                        seen.push_back({score, block->cell + key});
                    }
                }
            }
            attend(shape, t, head, seen, t.out + (static_cast<int64_t>(token) * shape.n_head + head) * shape.d_v);
        }
    }
}

}  // namespace hw
