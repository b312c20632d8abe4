#include "kernel/delta-chunk.h"

#include <algorithm>

#include "kernel/recurrence-loops.h"

namespace hw {

DeltaChunk::DeltaChunk(const RecurrenceShape& shape, float* scratch) : MatrixChunk(shape, scratch) {
    keys_ = floats(most_tokens * shape.d_k);
    keys_after_ = floats(most_tokens * shape.d_k);
    queries_ = floats(most_tokens * shape.d_k);
    among_keys_ = floats(most_tokens * most_tokens);
    among_queries_ = floats(most_tokens * most_tokens);
    ratios_ = floats(most_tokens * most_tokens);
    betas_ = floats(most_tokens);
    changes_ = floats(most_tokens * std::max(shape.d_k, shape.d_v));
}

size_t DeltaChunk::n_floats(const RecurrenceShape& shape) {
    return static_cast<size_t>(most_tokens * (3 * shape.d_k + 3 * most_tokens + 1 + std::max(shape.d_k, shape.d_v)));
}

int64_t DeltaChunk::take(const TokenRows& tokens, const float* q, int64_t q_row) {
    tokens_ = tokens;
    n_ = n_sources_ = std::min(tokens.n, most_tokens);
    const int64_t d = shape_.d_k;
    for (int64_t i = 0; i < n_; i++) {
        const float* k = tokens.rows + i * tokens.stride;
        const float decay = k[d + shape_.d_v];
        betas_[i] = k[d + shape_.d_v + 1];
        std::copy_n(k, d, keys_ + i * d);
        for (int64_t l = 0; l < d; l++) {
            keys_after_[l * n_ + i] = k[l];
        }
        if (q != nullptr) {
            std::copy_n(q + i * q_row, d, queries_ + i * d);
        }
        ratios_[i * n_ + i] = 1.0f;
        for (int64_t j = 0; j < i; j++) {
            ratios_[i * n_ + j] = flushed(ratios_[(i - 1) * n_ + j] * decay);
        }
    }
    weigh(q, q_row);
    return n_;
}

// The products of keys, and of queries with keys; then what each has decayed.
void DeltaChunk::weigh(const float* q, int64_t q_row) {
    const int64_t d = shape_.d_k;
    const auto among = [&](float* all, const float* rows, int64_t row, int64_t n_own) {
        std::fill_n(all, n_ * n_, 0.0f);
        loops_.multiply(n_, n_, d, {rows, row, 1}, keys_after_, n_, all, n_);
        for (int64_t i = 0; i < n_; i++) {
            for (int64_t j = 0; j < n_; j++) {
                all[i * n_ + j] = j < i + n_own ? all[i * n_ + j] * ratios_[i * n_ + j] : 0.0f;
            }
        }
    };
    among(among_keys_, tokens_.rows, tokens_.stride, 0);
    if (q != nullptr) {
        among(among_queries_, q, q_row, 1);
    }
    const float first = tokens_.rows[d + shape_.d_v];
    for (int64_t i = 0; i < n_; i++) {
        const float decayed = ratios_[i * n_] * first;
        std::transform(keys_ + i * d, keys_ + (i + 1) * d, keys_ + i * d, [=](float x) { return x * decayed; });
        std::transform(queries_ + i * d, queries_ + (i + 1) * d, queries_ + i * d,
                       [=](float x) { return x * decayed; });
        for (int64_t l = 0; l < d; l++) {
            keys_after_[l * n_ + i] *= ratios_[(n_ - 1) * n_ + i];
        }
    }
}

void DeltaChunk::apply(float* matrix, int64_t n, bool has_values, float* reads, int64_t reads_row) {
    const int64_t d = shape_.d_k;
    std::fill_n(changes_, n_ * n, 0.0f);
    loops_.multiply(n_, n, d, {keys_, d, 1}, matrix, n, changes_, n);
    for (int64_t i = 0; i < n_; i++) {
        const float* v = tokens_.rows + i * tokens_.stride + d;
        float* u = changes_ + i * n;
        loops_.multiply(1, n, i, {among_keys_ + i * n_, n_, 1}, changes_, n, u, n);
        for (int64_t j = 0; j < n; j++) {
            u[j] = betas_[i] * ((has_values ? v[j] : 0.0f) - u[j]);
        }
    }
    if (reads != nullptr) {
        read(matrix, n, n_, reads, reads_row);
    }
    loops_.scale(matrix, d * n, ratios_[(n_ - 1) * n_] * tokens_.rows[d + shape_.d_v]);
    loops_.multiply(d, n, n_, {keys_after_, n_, 1}, changes_, n, matrix, n);
}

}  // namespace hw
