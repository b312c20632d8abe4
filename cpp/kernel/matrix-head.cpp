#include "kernel/matrix-head.h"

#include <algorithm>
#include <functional>
#include <vector>

namespace hw {

namespace {

// What no tokens do. matrix: NULL of a state.
void clear(const RecurrenceShape& shape, float* state, float* matrix) {
    std::fill_n(state, shape.d_v * shape.d_k, 0.0f);
    for (int64_t i = 0; matrix != nullptr && i < shape.d_k; i++) {
        std::fill_n(matrix + i * shape.d_k, shape.d_k, 0.0f);
        matrix[i * shape.d_k + i] = 1.0f;
    }
}

// state [d_k, d_v], and matrix [d_k, d_k] unless NULL, behind tokens.
void pass_on(MatrixChunk* chunk, TokenRows tokens, float* state, float* matrix) {
    while (tokens.n > 0) {
        const int64_t n = chunk->take(tokens, nullptr, 0);
        chunk->apply(state, tokens.d_v, true, nullptr, 0);
        if (matrix != nullptr) {
            chunk->apply(matrix, tokens.d_k, false, nullptr, 0);
        }
        tokens.rows += n * tokens.stride;
        tokens.n -= n;
    }
}

}  // namespace

MatrixHead::MatrixHead(const RecurrentPlan& plan, const Recurrence& recurrence, const MatrixTokens& tokens,
                       const ReadOrder& order, float* scratch, int64_t head)
    : plan_(plan),
      head_(recurrence, head),
      number_(head),
      d_k_(recurrence.shape.d_k),
      d_v_(recurrence.shape.d_v),
      tokens_(tokens),
      order_(order),
      queries_(scratch),
      state_(queries_ + plan.n_tokens * d_k_),
      next_(state_ + d_k_ * d_v_),
      together_(next_ + d_k_ * d_v_),
      rows_(together_ + most_together * (d_k_ + std::max(d_k_, d_v_))),
      chunk_(make_chunk(recurrence.shape, rows_ + MatrixChunk::most_tokens * recurrence.shape.n_row())) {}

size_t matrix_scratch(const RecurrenceShape& shape, int32_t n_tokens) {
    return static_cast<size_t>(n_tokens * shape.d_k + 2 * shape.d_k * shape.d_v +
                               MatrixHead::most_together * (shape.d_k + std::max(shape.d_k, shape.d_v)) +
                               MatrixChunk::most_tokens * shape.n_row()) +
           chunk_floats(shape);
}

void MatrixHead::run() const {
    for (const RecurrentView& view : plan_.views) {
        for (int32_t i = 0; i < view.n_works; i++) {
            update(plan_.works[static_cast<size_t>(view.first_work + i)], view, i == 0 && view.n_links == 0);
        }
    }
    for (const RecurrentView& view : plan_.views) {
        if (order_.leaves_out(plan_, view)) {
            read_composed(view);
        }
    }
    order_.each(most_together, [&](const ReadOrder::Read* reads, int64_t n) { read(reads, n); });
    for (int64_t token = 0; tokens_.scale != 1.0f && token < plan_.n_tokens; token++) {
        float* y = out_of(token);
        std::transform(y, y + d_v_, y, [this](float x) { return x * tokens_.scale; });
    }
}

// The run with the tokens of the pass.
void MatrixHead::update(const RecurrentWork& work, const RecurrentView& view, bool is_first) const {
    if (work.before.is_rows()) {
        for (int64_t i = 0; i < work.n_tokens; i++) {
            tokens_.put_row(work.first_token + i, head_.row(work, i));
            begin(work.first_token + i);
        }
        return;
    }
    float* state = head_.state(work.after);
    float* matrix = work.before.is_state ? nullptr : head_.matrix(work.after);
    if (work.before.data != nullptr) {
        std::copy_n(head_.state(work.before.data), d_v_ * d_k_, state);
        if (matrix != nullptr) {
            std::copy_n(head_.matrix(work.before.data), d_k_ * d_k_, matrix);
        }
    } else if (matrix != nullptr) {
        clear(head_.shape(), state, matrix);
    } else {
        compose(view);
        std::copy_n(state_, d_v_ * d_k_, state);
    }
    update_map(work, state, matrix, is_first);
}

// Also what each token reads of the map, and its query for what stands before; nothing does: is_first. Of a state it
// reads all that there is. matrix: NULL of a state.
void MatrixHead::update_map(const RecurrentWork& work, float* state, float* matrix, bool is_first) const {
    const RecurrenceShape& shape = head_.shape();
    const int64_t query_row = static_cast<int64_t>(tokens_.queries.nb_token / sizeof(float));
    int64_t token = work.first_token;
    for (int64_t left = work.n_tokens; left > 0;) {
        TokenRows some = {rows_, shape.n_row(), std::min(left, MatrixChunk::most_tokens), d_k_, d_v_, shape.n_decay};
        for (int64_t i = 0; i < some.n; i++) {
            tokens_.put_row(token + i, rows_ + i * some.stride);
        }
        left -= some.n;
        while (some.n > 0) {
            const int64_t n = chunk_->take(some, tokens_.queries.at(token, number_), query_row);
            chunk_->apply(state, d_v_, true, out_of(token), shape.n_head * d_v_);
            if (matrix != nullptr) {
                chunk_->apply(matrix, d_k_, false, is_first ? nullptr : query_of(token), d_k_);
            }
            some.rows += n * some.stride;
            some.n -= n;
            token += n;
        }
    }
}

void MatrixHead::begin(int64_t token) const {
    std::copy_n(tokens_.queries.at(token, number_), d_k_, query_of(token));
    std::fill_n(out_of(token), d_v_, 0.0f);
}

// Adds what tokens read of a run before them; their queries are for what stands before that. Nothing does of the first
// run of a view: its matrix is of no use.
void MatrixHead::read(const ReadOrder::Read* reads, int64_t n) const {
    const RecurrentRun& run = reads->run;
    if (run.is_rows()) {
        std::for_each(reads, reads + n, [&](const ReadOrder::Read& read) { read_rows(read.token, run); });
        return;
    }
    float* results = together_ + most_together * d_k_;
    for (int64_t i = 0; i < n; i++) {
        std::copy_n(query_of(reads[i].token), d_k_, together_ + i * d_k_);
    }
    const auto multiplied = [&](const float* matrix, int64_t d) {
        std::fill_n(results, n * d, 0.0f);
        loops_.multiply(n, d, d_k_, {together_, d_k_, 1}, matrix, d, results, d);
    };
    multiplied(head_.state(run.data), d_v_);
    for (int64_t i = 0; i < n; i++) {
        float* y = out_of(reads[i].token);
        std::transform(y, y + d_v_, results + i * d_v_, y, std::plus<float>());
    }
    if (!reads->is_first) {
        multiplied(head_.matrix(run.data), d_k_);
        for (int64_t i = 0; i < n; i++) {
            std::copy_n(results + i * d_k_, d_k_, query_of(reads[i].token));
        }
    }
}

void MatrixHead::read_rows(int64_t token, const RecurrentRun& run) const {
    const auto back = head_.shape().kind == RecurrenceKind::delta ? loops_.delta_back : loops_.wkv7_back;
    back(head_.rows(run), query_of(token), out_of(token));
}

// state_: behind the links of a view.
void MatrixHead::compose(const RecurrentView& view) const {
    std::fill_n(state_, d_k_ * d_v_, 0.0f);
    for (int32_t i = 0; i < view.n_links; i++) {
        go_on(plan_.links[static_cast<size_t>(view.first_link + i)], i == 0);
    }
}

// Runs from the first to the last; their states are composed.
void MatrixHead::read_composed(const RecurrentView& view) const {
    compose(view);
    bool is_first = view.n_links == 0;
    for (int32_t i = 0; i < view.n_works; i++) {
        const RecurrentWork& work = plan_.works[static_cast<size_t>(view.first_work + i)];
        for (int64_t k = 0; work.before.is_rows() && k < work.n_tokens; k++) {
            read_rows(work.first_token + k, work.run(k + 1));
        }
        if (!is_first) {
            loops_.multiply(work.n_tokens, d_v_, d_k_, {query_of(work.first_token), d_k_, 1}, state_, d_v_,
                            out_of(work.first_token), head_.shape().n_head * d_v_);
        }
        if (i + 1 < view.n_works) {
            go_on(work.run(), is_first);
            is_first = false;
        }
    }
}

// state_: behind one more run.
void MatrixHead::go_on(const RecurrentRun& run, bool is_first) const {
    if (run.is_rows()) {
        return pass_on(chunk_.get(), head_.rows(run), state_, nullptr);
    }
    if (!is_first) {
        std::copy_n(state_, d_k_ * d_v_, next_);
    }
    std::copy_n(head_.state(run.data), d_k_ * d_v_, state_);
    if (!is_first) {
        loops_.multiply(d_k_, d_v_, d_k_, {head_.matrix(run.data), d_k_, 1}, next_, d_v_, state_, d_v_);
    }
}

void join_matrices(const Recurrence& recurrence, const std::vector<RecurrentRun>& runs, float* out) {
    const RecurrenceShape& shape = recurrence.shape;
    const int64_t n_state = shape.d_k * shape.d_v;
    const int64_t n_matrix = shape.d_k * shape.d_k;
    std::vector<float> before(static_cast<size_t>(std::max(n_state, n_matrix)));
    std::vector<float> scratch(chunk_floats(shape));
    const std::unique_ptr<MatrixChunk> chunk = make_chunk(shape, scratch.data());
    const StateLoops& loops = state_loops();
    const RecurrentRun& first = runs.front();
    for (int64_t number = 0; number < shape.n_head; number++) {
        const Head head(recurrence, number);
        float* state = head.state(out);
        float* matrix = first.is_state ? nullptr : head.matrix(out);
        if (first.is_rows()) {
            clear(shape, state, matrix);
        } else {
            std::copy_n(head.state(first.data), n_state, state);
            if (matrix != nullptr) {
                std::copy_n(head.matrix(first.data), n_matrix, matrix);
            }
        }
        for (size_t i = first.is_rows() ? 0 : 1; i < runs.size(); i++) {
            if (runs[i].is_rows()) {
                pass_on(chunk.get(), head.rows(runs[i]), state, matrix);
                continue;
            }
            const Matrix by = {head.matrix(runs[i].data), shape.d_k, 1};
            std::copy_n(state, n_state, before.data());
            std::copy_n(head.state(runs[i].data), n_state, state);
            loops.multiply(shape.d_k, shape.d_v, shape.d_k, by, before.data(), shape.d_v, state, shape.d_v);
            loops.scale(state, n_state, 1.0f);
            if (matrix != nullptr) {
                std::copy_n(matrix, n_matrix, before.data());
                std::fill_n(matrix, n_matrix, 0.0f);
                loops.multiply(shape.d_k, shape.d_k, shape.d_k, by, before.data(), shape.d_k, matrix, shape.d_k);
                loops.scale(matrix, n_matrix, 1.0f);
            }
        }
    }
}

}  // namespace hw
