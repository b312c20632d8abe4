// What the recurrences have in common.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernel/read-order.h"
#include "kernel/recurrence.h"
#include "kernel/state-loops.h"

namespace hw {

// What is so small is 0, as in kernel/state-loops-impl.h.
inline float flushed(float x) { return std::fabs(x) < 1e-30f ? 0.0f : x; }

// [begin, end) of n things for thread ith of nth.
struct Share {
    int64_t begin;
    int64_t end;
};
inline Share share_of(int64_t n, int ith, int nth) { return {n * ith / nth, n * (ith + 1) / nth}; }

// data, some bytes on.
inline const float* at_bytes(const float* data, size_t n_bytes) {
    return reinterpret_cast<const float*>(reinterpret_cast<const char*>(data) + n_bytes);
}

// One head of a recurrence: where its part of maps and of rows lies. Not of a convolution.
class Head {
  public:
    Head(const Recurrence& recurrence, int64_t head)
        : shape_(recurrence.shape),
          offset_(recurrence.offset + part(shape_.n_state_floats(), head)),
          matrix_offset_(recurrence.matrix_offset + part(shape_.n_matrix_floats(), head)),
          rows_offset_(static_cast<int64_t>(recurrence.rows_offset) + head * recurrence.shape.n_row()) {}

    const RecurrenceShape& shape() const { return shape_; }
    // Of a map, all but its A.
    const float* state(const float* all) const { return all + offset_; }
    float* state(float* all) const { return all + offset_; }
    int64_t offset() const { return static_cast<int64_t>(offset_); }  // of that
    const float* matrix(const float* all) const { return all + matrix_offset_; }
    float* matrix(float* all) const { return all + matrix_offset_; }
    // Where token i of a work goes, which adds to rows.
    float* row(const RecurrentWork& work, int64_t i) const {
        return work.after + rows_offset_ * work.before.n_room +
               (work.before.first_row + work.before.n_tokens + i) * shape_.n_row();
    }
    TokenRows rows(const RecurrentRun& run) const {
        return {run.data + rows_offset_ * run.n_room + run.first_row * shape_.n_row(),
                shape_.n_row(),
                run.n_tokens,
                shape_.d_k,
                shape_.d_v,
                shape_.n_decay};
    }

  private:
    // Where that of a head begins in n numbers of all heads.
    size_t part(size_t n, int64_t head) const {
        return n / static_cast<size_t>(shape_.n_head) * static_cast<size_t>(head);
    }

    const RecurrenceShape& shape_;
    size_t offset_;
    size_t matrix_offset_;
    int64_t rows_offset_;
};

// The heads of thread ith of nth: OneHead goes through a pass, Tokens are its tokens as a head has them. n_itself: of
// ReadOrder. Views of many tokens read runs composed: that takes as long as some tokens do.
template <class OneHead, class Tokens, class Tensors>
void run_heads(const RecurrentPlan& plan, const Recurrence& recurrence, const Tensors& tensors, float* scratch,
               int32_t n_itself, int ith, int nth) {
    const ReadOrder order(plan, recurrence.shape.d_k / 2, n_itself);
    const Share heads = share_of(recurrence.shape.n_head, ith, nth);
    for (int64_t head = heads.begin; head < heads.end; head++) {
        const Tokens tokens(recurrence.shape, tensors, head);
        OneHead(plan, recurrence, tokens, order, scratch, head).run();
    }
}

size_t diagonal_scratch(const RecurrenceShape& shape, int32_t n_tokens);
size_t matrix_scratch(const RecurrenceShape& shape, int32_t n_tokens);

void join_convolutions(const Recurrence& recurrence, const std::vector<RecurrentRun>& runs, float* out);
void join_diagonals(const Recurrence& recurrence, const std::vector<RecurrentRun>& runs, float* out);
void join_matrices(const Recurrence& recurrence, const std::vector<RecurrentRun>& runs, float* out);

}  // namespace hw
