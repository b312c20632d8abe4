#include "kernel/state-layout.h"

#include <algorithm>

#include "kernel/recurrence-loops.h"

namespace hw {

namespace {

// Calls each(ours, theirs) with the places of a number, for all numbers of the thread's share.
template <class Each>
void each_number(const Recurrence& recurrence, int ith, int nth, const Each& each) {
    const RecurrenceShape& shape = recurrence.shape;
    const Share heads = share_of(shape.n_head, ith, nth);
    if (shape.kind == RecurrenceKind::convolution) {
        const int64_t offset = static_cast<int64_t>(recurrence.offset);
        for (int64_t age = 0; age < shape.d_k; age++) {
            for (int64_t channel = heads.begin; channel < heads.end; channel++) {
                each(offset + age * shape.n_head + channel, channel * shape.d_k + shape.d_k - 1 - age);
            }
        }
        return;
    }
    const bool has_decays = shape.n_matrix_floats() == 0;
    const int64_t n_rows = has_decays ? shape.d_v : shape.d_k;
    const int64_t n_columns = has_decays ? shape.d_k : shape.d_v;
    const bool is_turned = shape.kind != RecurrenceKind::diagonal;
    for (int64_t head = heads.begin; head < heads.end; head++) {
        const int64_t ours = Head(recurrence, head).offset() + (has_decays ? shape.n_decay : 0);
        const int64_t theirs = head * n_rows * n_columns;
        for (int64_t row = 0; row < n_rows; row++) {
            for (int64_t column = 0; column < n_columns; column++) {
                each(ours + row * n_columns + column,
                     theirs + (is_turned ? column * n_rows + row : row * n_columns + column));
            }
        }
    }
}

}  // namespace

void state_to_ggml(const Recurrence& recurrence, const float* all, float* state, int ith, int nth) {
    each_number(recurrence, ith, nth,
                [=](int64_t ours, int64_t theirs) { state[theirs] = all != nullptr ? all[ours] : 0.0f; });
}

void state_from_ggml(const Recurrence& recurrence, const float* state, float* all, int ith, int nth) {
    const RecurrenceShape& shape = recurrence.shape;
    const bool has_decays = shape.n_matrix_floats() == 0 && shape.n_decay > 0;
    const Share heads = share_of(has_decays ? shape.n_head : 0, ith, nth);
    for (int64_t head = heads.begin; head < heads.end; head++) {
        std::fill_n(Head(recurrence, head).state(all), shape.n_decay, 0.0f);
    }
    each_number(recurrence, ith, nth, [=](int64_t ours, int64_t theirs) { all[ours] = state[theirs]; });
}

}  // namespace hw
