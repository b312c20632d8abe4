#include "kernel/recurrence.h"

#include <algorithm>

#include "kernel/columns.h"
#include "kernel/recurrence-loops.h"

namespace hw {

size_t RecurrenceShape::n_floats() const {
    switch (kind) {
        case RecurrenceKind::convolution:
            return static_cast<size_t>(d_k * n_head);
        case RecurrenceKind::diagonal:
        case RecurrenceKind::linear:
            return static_cast<size_t>(n_head * (n_decay + d_v * d_k));
        case RecurrenceKind::delta:
        case RecurrenceKind::wkv7:
            break;
    }
    return static_cast<size_t>(n_head * (d_v + d_k) * d_k);
}

bool RecurrenceShape::operator==(const RecurrenceShape& other) const {
    return kind == other.kind && n_head == other.n_head && d_k == other.d_k && d_v == other.d_v &&
           n_decay == other.n_decay && scale == other.scale && slope == other.slope;
}

// What each token reads the runs before its own with, and those runs composed.
size_t recurrent_scratch(const RecurrenceShape& shape, int32_t n_tokens) {
    const int64_t n_state = shape.d_k * shape.d_v;
    switch (shape.kind) {
        case RecurrenceKind::convolution:
            return 0;
        case RecurrenceKind::diagonal:
            return static_cast<size_t>(n_tokens * shape.n_decay + n_state + 2 * shape.d_k + 2 * shape.d_v);
        case RecurrenceKind::delta:
        case RecurrenceKind::linear:
        case RecurrenceKind::wkv7:
            break;
    }
    return static_cast<size_t>(n_tokens * shape.d_k + n_state + 2 * (shape.d_v + shape.d_k));
}

namespace {

void join_convolution(const RecurrenceShape& shape, const float* first, const float* second, int64_t n_second,
                      float* out) {
    const int64_t n_own = std::min(n_second, shape.d_k);
    std::copy_n(second, n_own * shape.n_head, out);
    std::copy_n(first, (shape.d_k - n_own) * shape.n_head, out + n_own * shape.n_head);
}

void join_diagonal(const RecurrenceShape& shape, const float* first, const float* second, float* out) {
    const int64_t n = shape.n_decay + shape.d_v * shape.d_k;
    for (int64_t head = 0; head < shape.n_head; head++, first += n, second += n, out += n) {
        for (int64_t i = 0; i < shape.n_decay; i++) {
            out[i] = flushed(second[i] * first[i]);
        }
        for (int64_t i = 0; i < shape.d_v * shape.d_k; i++) {
            const float decay = second[shape.n_decay == 1 ? 0 : i % shape.d_k];
            out[shape.n_decay + i] = decay * first[shape.n_decay + i] + second[shape.n_decay + i];
        }
    }
}

void join_delta(const RecurrenceShape& shape, const float* first, const float* second, float* out) {
    const int64_t n_columns = shape.d_v + shape.d_k;
    const int64_t n = n_columns * shape.d_k;
    for (int64_t head = 0; head < shape.n_head; head++, first += n, second += n, out += n) {
        const float* matrix = second + shape.d_v * shape.d_k;
        for (int64_t column = 0; column < n_columns; column++) {
            const float* x = first + column * shape.d_k;
            float* y = out + column * shape.d_k;
            if (column < shape.d_v) {
                std::copy_n(second + column * shape.d_k, shape.d_k, y);
            } else {
                std::fill_n(y, shape.d_k, 0.0f);
            }
            column_loops().add(matrix, shape.d_k, shape.d_k, x, y);
            std::transform(y, y + shape.d_k, y, flushed);
        }
    }
}

}  // namespace

void join_maps(const Recurrence& recurrence, const RecurrentLink& first, const RecurrentLink& second, float* out) {
    const RecurrenceShape& shape = recurrence.shape;
    const float* before = first.map + recurrence.offset;
    const float* behind = second.map + recurrence.offset;
    out += recurrence.offset;
    switch (shape.kind) {
        case RecurrenceKind::convolution:
            return join_convolution(shape, before, behind, second.n_tokens, out);
        case RecurrenceKind::diagonal:
        case RecurrenceKind::linear:
            return join_diagonal(shape, before, behind, out);
        case RecurrenceKind::delta:
        case RecurrenceKind::wkv7:
            return join_delta(shape, before, behind, out);
    }
}

}  // namespace hw
