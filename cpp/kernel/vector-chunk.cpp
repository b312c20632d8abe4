#include "kernel/vector-chunk.h"

#include <algorithm>

#include "kernel/recurrence-loops.h"

namespace hw {

namespace {

// What a row may decay in a chunk: its inverse, and products of both, are far from the ends of what a float can be.
constexpr float least_decayed = 1e-12f;
constexpr float most_decayed = 1e12f;

}  // namespace

VectorChunk::VectorChunk(const RecurrenceShape& shape, float* scratch)
    : MatrixChunk(shape, scratch), is_delta_(shape.kind == RecurrenceKind::delta) {
    decayed_ = floats((most_tokens + 1) * shape.d_k);
    takers_ = floats(most_tokens * shape.d_k);
    queries_ = floats(most_tokens * shape.d_k);
    sources_ = floats(2 * most_tokens * shape.d_k);
    among_takers_ = floats(2 * most_tokens * most_tokens);
    among_queries_ = floats(2 * most_tokens * most_tokens);
    changes_ = floats(2 * most_tokens * std::max(shape.d_k, shape.d_v));
    std::fill_n(decayed_, shape.d_k, 1.0f);
}

size_t VectorChunk::n_floats(const RecurrenceShape& shape) {
    return static_cast<size_t>((most_tokens + 1) * shape.d_k +
                               most_tokens * (4 * shape.d_k + 4 * most_tokens + 2 * std::max(shape.d_k, shape.d_v)));
}

int64_t VectorChunk::take(const TokenRows& tokens, const float* q, int64_t q_row) {
    tokens_ = tokens;
    n_ = n_in_range();
    n_sources_ = is_delta_ ? n_ : 2 * n_;
    const int64_t d = shape_.d_k;
    for (int64_t i = 0; i < n_; i++) {
        put(i);
        for (int64_t l = 0; q != nullptr && l < d; l++) {
            queries_[i * d + l] = q[i * q_row + l] * decayed(i + 1)[l];
        }
    }
    weigh(takers_, among_takers_, 0);
    if (q != nullptr && n_ > 1) {
        weigh(queries_, among_queries_, 1);
    } else if (q != nullptr) {  // it was not divided
        std::fill_n(among_queries_, n_sources_, 0.0f);
        loops_.multiply(1, n_sources_, d, {q, 0, 1}, sources_, n_sources_, among_queries_, n_sources_);
    }
    for (int64_t l = 0; n_ > 1 && l < d; l++) {
        const float left = decayed(n_)[l];
        float* of_row = sources_ + l * n_sources_;
        std::transform(of_row, of_row + n_sources_, of_row, [=](float x) { return x * left; });
    }
    return n_;
}

// As many tokens as stay in range, one at least; sets what they have decayed.
int64_t VectorChunk::n_in_range() const {
    const int64_t d = shape_.d_k;
    for (int64_t i = 0; i < std::min(tokens_.n, most_tokens); i++) {
        const float* decays = row(i) + d + shape_.d_v;
        float* next = decayed_ + (i + 1) * d;
        bool is_in_range = true;
        for (int64_t l = 0; l < d; l++) {
            next[l] = decayed(i)[l] * decays[l];
            is_in_range &= next[l] > least_decayed && next[l] < most_decayed;
        }
        if (!is_in_range) {
            return std::max(i, int64_t{1});
        }
    }
    return std::min(tokens_.n, most_tokens);
}

// What a token takes out of states, and what it changes: of a chunk of one token, not divided.
void VectorChunk::put(int64_t i) {
    const int64_t d = shape_.d_k;
    const float* k = row(i);
    const float* decays = k + d + shape_.d_v;
    const float* a = decays + d;
    const float* b = a + d;
    for (int64_t l = 0; l < d; l++) {
        const float inverse = n_ > 1 ? 1.0f / decayed(i + 1)[l] : 1.0f;
        float* of_row = sources_ + l * n_sources_;
        if (is_delta_) {
            takers_[i * d + l] = -a[0] * k[l] * decayed(i + 1)[l];  // a[0]: beta
            of_row[i] = k[l] * inverse;
        } else {
            takers_[i * d + l] = a[l] * decayed(i)[l];
            of_row[i] = b[l] * inverse;
            of_row[n_ + i] = k[l] * inverse;
        }
    }
}

// Of each token, what those before it (n_own: 0), and itself (1), do to its product with states.
void VectorChunk::weigh(const float* from, float* among, int64_t n_own) const {
    std::fill_n(among, n_ * n_sources_, 0.0f);
    loops_.multiply(n_, n_sources_, shape_.d_k, {from, shape_.d_k, 1}, sources_, n_sources_, among, n_sources_);
    for (int64_t i = 0; i < n_; i++) {
        for (int64_t j = i + n_own; j < n_; j++) {
            for (int64_t of = j; of < n_sources_; of += n_) {
                among[i * n_sources_ + of] = 0.0f;
            }
        }
    }
}

void VectorChunk::apply(float* matrix, int64_t n, bool has_values, float* reads, int64_t reads_row) {
    const int64_t d = shape_.d_k;
    const int64_t n_used = has_values ? n_sources_ : n_;
    float* values = changes_ + n_ * n;
    std::fill_n(changes_, n_ * n, 0.0f);
    for (int64_t i = 0; has_values && i < n_; i++) {
        const float* v = row(i) + d;
        if (is_delta_) {
            const float beta = v[n + d];
            std::transform(v, v + n, changes_ + i * n, [=](float x) { return beta * x; });
        } else {
            std::copy_n(v, n, values + i * n);
        }
    }
    loops_.multiply(n_, n, d, {takers_, d, 1}, matrix, n, changes_, n);
    loops_.multiply(n_, n, n_used - n_, {among_takers_ + n_, n_sources_, 1}, values, n, changes_, n);
    for (int64_t i = 1; i < n_; i++) {
        loops_.multiply(1, n, i, {among_takers_ + i * n_sources_, 0, 1}, changes_, n, changes_ + i * n, n);
    }
    if (reads != nullptr) {
        read(matrix, n, n_used, reads, reads_row);
    }
    for (int64_t l = 0; l < d; l++) {
        loops_.scale(matrix + l * n, n, decayed(n_)[l]);
    }
    loops_.multiply(d, n, n_used, {sources_, n_sources_, 1}, changes_, n, matrix, n);
}

}  // namespace hw
