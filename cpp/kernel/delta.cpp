// Gated delta nets, and Kimi's, where each row decays by itself.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernel/delta-chunk.h"
#include "kernel/matrix-head.h"

namespace hw {

namespace {

class DeltaRows final : public MatrixRows {
  public:
    explicit DeltaRows(DeltaChunk* chunk) : chunk_(*chunk) {}

    void read_back(const TokenRows& tokens, float* x, float* y) const override {
        state_loops().delta_back(tokens, x, y);
    }

    void pass_on(const TokenRows& tokens, float* state, float* matrix) override {
        for (int64_t done = 0; done < tokens.n; done += chunk_.n_most()) {
            TokenRows some = tokens;
            some.rows += done * tokens.stride;
            some.n = std::min(tokens.n - done, chunk_.n_most());
            chunk_.take(some, nullptr, 0);
            chunk_.apply(state, tokens.d_v, some.rows + tokens.d_k, tokens.stride, nullptr, 0);
            if (matrix != nullptr) {
                chunk_.apply(matrix, tokens.d_k, nullptr, 0, nullptr, 0);
            }
        }
    }

  private:
    DeltaChunk& chunk_;
};

class DeltaHead final : public MatrixHead {
  public:
    // chunk_rows: rows of a chunk.
    DeltaHead(const RecurrentPlan& plan, const Recurrence& recurrence, const DeltaTensors& tensors, DeltaRows* rows,
              DeltaChunk* chunk, float* chunk_rows, float* scratch, int64_t head)
        : MatrixHead(plan, recurrence, rows, scratch, head, tensors.out),
          t_(tensors),
          chunk_(*chunk),
          chunk_rows_(chunk_rows) {}

    void scale(int64_t token) const {
        const float factor = 1.0f / std::sqrt(static_cast<float>(d_v_));
        float* y = out_of(token);
        std::transform(y, y + d_v_, y, [=](float x) { return x * factor; });
    }

  protected:
    void put_row(int64_t token, float* row) const override {
        row = std::copy_n(t_.k.at(token, number_), d_k_, row);
        row = std::copy_n(t_.v.at(token, number_), d_v_, row);
        const float* g = t_.g.at(token, number_);
        row = std::transform(g, g + head_.shape().n_decay, row, [](float x) { return std::exp(x); });
        *row = *t_.beta.at(token, number_);
    }

    const float* query(int64_t token) const override { return t_.q.at(token, number_); }

    void update_map(int64_t first_token, int64_t n_tokens, float* map, bool is_first) override {
        const RecurrenceShape& shape = head_.shape();
        const int64_t n_row = shape.n_row();
        const int64_t q_row = static_cast<int64_t>(t_.q.nb_token / sizeof(float));
        for (int64_t done = 0; done < n_tokens; done += chunk_.n_most()) {
            const int64_t first = first_token + done;
            const int64_t n = std::min(n_tokens - done, chunk_.n_most());
            for (int64_t i = 0; i < n; i++) {
                put_row(first + i, chunk_rows_ + i * n_row);
            }
            chunk_.take({chunk_rows_, n_row, n, d_k_, d_v_, shape.n_decay}, query(first), q_row);
            chunk_.apply(map, d_v_, chunk_rows_ + d_k_, n_row, out_of(first), shape.n_head * d_v_);
            chunk_.apply(map + d_k_ * d_v_, d_k_, nullptr, 0, is_first ? nullptr : query_of(first), d_k_);
        }
    }

  private:
    const DeltaTensors& t_;
    DeltaChunk& chunk_;
    float* chunk_rows_;
};

}  // namespace

size_t delta_scratch(const RecurrenceShape& shape, int32_t n_tokens) {
    return MatrixHead::n_floats(shape, n_tokens) + static_cast<size_t>(DeltaChunk::most_tokens * shape.n_row()) +
           DeltaChunk::n_floats(shape);
}

void run_delta(const RecurrentPlan& plan, const Recurrence& recurrence, const DeltaTensors& tensors, float* scratch,
               int ith, int nth) {
    const RecurrenceShape& shape = recurrence.shape;
    const Share heads = share_of(shape.n_head, ith, nth);
    float* chunk_rows = scratch + MatrixHead::n_floats(shape, plan.n_tokens);
    DeltaChunk chunk(shape, chunk_rows + DeltaChunk::most_tokens * shape.n_row());
    DeltaRows rows(&chunk);
    for (int64_t head = heads.begin; head < heads.end; head++) {
        DeltaHead one(plan, recurrence, tensors, &rows, &chunk, chunk_rows, scratch, head);
        one.run();
        for (int64_t token = 0; token < plan.n_tokens; token++) {
            one.scale(token);
        }
    }
}

void join_deltas(const Recurrence& recurrence, const RecurrentRun& first, const RecurrentRun& second, float* out) {
    std::vector<float> scratch(DeltaChunk::n_floats(recurrence.shape));
    DeltaChunk chunk(recurrence.shape, scratch.data());
    DeltaRows rows(&chunk);
    join_matrices(recurrence, first, second, &rows, out);
}

}  // namespace hw
