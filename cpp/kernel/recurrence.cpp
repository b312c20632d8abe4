#include "kernel/recurrence.h"

#include <algorithm>

#include "kernel/recurrence-loops.h"

namespace hw {

namespace {

bool has_matrix(RecurrenceKind kind) { return kind == RecurrenceKind::delta || kind == RecurrenceKind::wkv7; }

}  // namespace

size_t RecurrenceShape::n_state_floats() const {
    if (kind == RecurrenceKind::convolution) {
        return static_cast<size_t>(d_k * n_head);
    }
    return static_cast<size_t>(n_head * ((has_matrix(kind) ? 0 : n_decay) + d_v * d_k));
}

size_t RecurrenceShape::n_matrix_floats() const {
    return has_matrix(kind) ? static_cast<size_t>(n_head * d_k * d_k) : 0;
}

int64_t RecurrenceShape::n_row() const {
    switch (kind) {
        case RecurrenceKind::convolution:
            return n_head;
        case RecurrenceKind::diagonal:
        case RecurrenceKind::linear:
            return d_k + d_v + n_decay;
        case RecurrenceKind::delta:
            return d_k + d_v + n_decay + 1;
        case RecurrenceKind::wkv7:
            break;
    }
    return d_k + d_v + n_decay + 2 * d_k;
}

size_t RecurrenceShape::n_row_floats() const {
    return static_cast<size_t>(kind == RecurrenceKind::convolution ? n_row() : n_head * n_row());
}

bool RecurrenceShape::operator==(const RecurrenceShape& other) const {
    return kind == other.kind && n_head == other.n_head && d_k == other.d_k && d_v == other.d_v &&
           n_decay == other.n_decay && scale == other.scale && slope == other.slope;
}

size_t recurrent_scratch(const RecurrenceShape& shape, int32_t n_tokens) {
    switch (shape.kind) {
        case RecurrenceKind::convolution:
            return 0;
        case RecurrenceKind::diagonal:
        case RecurrenceKind::linear:
            return diagonal_scratch(shape, n_tokens);
        case RecurrenceKind::delta:
        case RecurrenceKind::wkv7:
            break;
    }
    return matrix_scratch(shape, n_tokens);
}

const float* HeadRows::at(int64_t token, int64_t head) const {
    return at_bytes(data, static_cast<size_t>(token) * nb_token + static_cast<size_t>(head % n_head) * nb_head);
}

void lay_out(std::vector<Recurrence>* recurrences) {
    lay_out(recurrences, 0);
    const size_t n_row = std::max(row_floats(*recurrences), size_t{1});
    const int64_t n_rows = std::min(static_cast<int64_t>(map_floats(*recurrences) / n_row), most_rows);
    lay_out(recurrences, n_rows < least_rows ? 0 : n_rows);
}

void lay_out(std::vector<Recurrence>* recurrences, int64_t n_rows) {
    size_t offset = 0;
    size_t rows_offset = 0;
    for (Recurrence& recurrence : *recurrences) {
        recurrence = {recurrence.shape, offset, 0, rows_offset, n_rows};
        offset += recurrence.shape.n_state_floats();
        rows_offset += recurrence.shape.n_row_floats();
    }
    for (Recurrence& recurrence : *recurrences) {
        recurrence.matrix_offset = offset;
        offset += recurrence.shape.n_matrix_floats();
    }
}

size_t map_floats(const std::vector<Recurrence>& recurrences) {
    return recurrences.empty() ? 0 : recurrences.back().matrix_offset + recurrences.back().shape.n_matrix_floats();
}

size_t state_floats(const std::vector<Recurrence>& recurrences) {
    return recurrences.empty() ? 0 : recurrences.front().matrix_offset;
}

size_t row_floats(const std::vector<Recurrence>& recurrences) {
    return recurrences.empty() ? 0 : recurrences.back().rows_offset + recurrences.back().shape.n_row_floats();
}

void join_runs(const Recurrence& recurrence, const std::vector<RecurrentRun>& runs, float* out) {
    switch (recurrence.shape.kind) {
        case RecurrenceKind::convolution:
            return join_convolutions(recurrence, runs, out);
        case RecurrenceKind::diagonal:
        case RecurrenceKind::linear:
            return join_diagonals(recurrence, runs, out);
        case RecurrenceKind::delta:
        case RecurrenceKind::wkv7:
            return join_matrices(recurrence, runs, out);
    }
}

void copy_rows(const Recurrence& recurrence, const RecurrentRun& run, const RecurrentRun& before, float* rows) {
    const int64_t n_row = recurrence.shape.n_row();
    const int64_t n_head = recurrence.shape.kind == RecurrenceKind::convolution ? 1 : recurrence.shape.n_head;
    const int64_t offset = static_cast<int64_t>(recurrence.rows_offset);
    for (int64_t head = 0; head < n_head; head++) {
        const float* from = run.data + offset * run.n_room + (head * run.n_room + run.first_row) * n_row;
        float* to = rows + offset * before.n_room + (head * before.n_room + before.first_row + before.n_tokens) * n_row;
        std::copy_n(from, run.n_tokens * n_row, to);
    }
}

}  // namespace hw
