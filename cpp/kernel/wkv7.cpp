// RWKV-7: a delta net whose tokens say what is taken out of a state (along a), and where to it is put back (along b).
#include <algorithm>
#include <vector>

#include "kernel/matrix-head.h"

namespace hw {

namespace {

class Wkv7Rows final : public MatrixRows {
  public:
    // scratch: n_floats() numbers.
    explicit Wkv7Rows(float* scratch) : taken_(scratch) {}
    static size_t n_floats(const RecurrenceShape& shape) { return static_cast<size_t>(std::max(shape.d_k, shape.d_v)); }

    void read_back(const TokenRows& tokens, float* x, float* y) const override {
        state_loops().wkv7_back(tokens, x, y);
    }

    void pass_on(const TokenRows& tokens, float* state, float* matrix) override {
        state_loops().wkv7(tokens, state, tokens.d_v, true, taken_);
        if (matrix != nullptr) {
            state_loops().wkv7(tokens, matrix, tokens.d_k, false, taken_);
        }
    }

  private:
    float* taken_;
};

class Wkv7Head final : public MatrixHead {
  public:
    // row: of a token.
    Wkv7Head(const RecurrentPlan& plan, const Recurrence& recurrence, const Wkv7Tensors& tensors, Wkv7Rows* rows,
             float* row, float* scratch, int64_t head)
        : MatrixHead(plan, recurrence, rows, scratch, head, tensors.out), t_(tensors), rows_(*rows), row_(row) {}

  protected:
    void put_row(int64_t token, float* row) const override {
        row = std::copy_n(t_.k.at(token, number_), d_k_, row);
        row = std::copy_n(t_.v.at(token, number_), d_v_, row);
        for (const HeadRows* part : {&t_.decays, &t_.a, &t_.b}) {
            row = std::copy_n(part->at(token, number_), d_k_, row);
        }
    }

    const float* query(int64_t token) const override { return t_.r.at(token, number_); }

    void update_map(int64_t first_token, int64_t n, float* map, bool is_first) override {
        for (int64_t token = first_token; token < first_token + n; token++) {
            put_row(token, row_);
            begin(token);
            rows_.pass_on({row_, 0, 1, d_k_, d_v_, d_k_}, map, map + d_k_ * d_v_);
            read_map(token, map, is_first);
        }
    }

  private:
    const Wkv7Tensors& t_;
    Wkv7Rows& rows_;
    float* row_;
};

}  // namespace

size_t wkv7_scratch(const RecurrenceShape& shape, int32_t n_tokens) {
    return MatrixHead::n_floats(shape, n_tokens) + static_cast<size_t>(shape.n_row()) + Wkv7Rows::n_floats(shape);
}

void run_wkv7(const RecurrentPlan& plan, const Recurrence& recurrence, const Wkv7Tensors& tensors, float* scratch,
              int ith, int nth) {
    const RecurrenceShape& shape = recurrence.shape;
    const Share heads = share_of(shape.n_head, ith, nth);
    float* row = scratch + MatrixHead::n_floats(shape, plan.n_tokens);
    Wkv7Rows rows(row + shape.n_row());
    for (int64_t head = heads.begin; head < heads.end; head++) {
        Wkv7Head(plan, recurrence, tensors, &rows, row, scratch, head).run();
    }
}

void join_wkv7(const Recurrence& recurrence, const RecurrentRun& first, const RecurrentRun& second, float* out) {
    std::vector<float> scratch(Wkv7Rows::n_floats(recurrence.shape));
    Wkv7Rows rows(scratch.data());
    join_matrices(recurrence, first, second, &rows, out);
}

}  // namespace hw
