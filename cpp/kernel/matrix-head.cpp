#include "kernel/matrix-head.h"

#include <algorithm>
#include <vector>

namespace hw {

namespace {

// A map of no tokens.
void clear(const RecurrenceShape& shape, float* map) {
    std::fill_n(map, (shape.d_v + shape.d_k) * shape.d_k, 0.0f);
    float* matrix = map + shape.d_v * shape.d_k;
    for (int64_t i = 0; i < shape.d_k; i++) {
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
                       float* scratch, int64_t head)
    : plan_(plan),
      head_(recurrence, head),
      number_(head),
      d_k_(recurrence.shape.d_k),
      d_v_(recurrence.shape.d_v),
      tokens_(tokens),
      queries_(scratch),
      state_(queries_ + plan.n_tokens * d_k_),
      next_(state_ + d_k_ * d_v_),
      rows_(next_ + d_k_ * std::max(d_k_, d_v_)),
      chunk_(make_chunk(recurrence.shape, rows_ + MatrixChunk::most_tokens * recurrence.shape.n_row())) {}

size_t matrix_scratch(const RecurrenceShape& shape, int32_t n_tokens) {
    return static_cast<size_t>(n_tokens * shape.d_k + 2 * shape.d_k * std::max(shape.d_k, shape.d_v) +
                               MatrixChunk::most_tokens * shape.n_row()) +
           chunk_floats(shape);
}

void MatrixHead::run() const {
    for (const RecurrentView& view : plan_.views) {
        for (int32_t i = 0; i < view.n_works; i++) {
            update(plan_.works[static_cast<size_t>(view.first_work + i)], i == 0 && view.n_links == 0);
        }
    }
    for (const RecurrentView& view : plan_.views) {
        read(view);
    }
    for (int64_t token = 0; tokens_.scale != 1.0f && token < plan_.n_tokens; token++) {
        float* y = out_of(token);
        std::transform(y, y + d_v_, y, [this](float x) { return x * tokens_.scale; });
    }
}

// The run with the tokens of the pass.
void MatrixHead::update(const RecurrentWork& work, bool is_first) const {
    if (work.before.is_rows()) {
        for (int64_t i = 0; i < work.n_tokens; i++) {
            tokens_.put_row(work.first_token + i, head_.row(work, i));
            begin(work.first_token + i);
        }
        return;
    }
    float* map = head_.map(work.after);
    if (work.before.n_tokens > 0) {
        std::copy_n(head_.map(work.before.data), (d_v_ + d_k_) * d_k_, map);
    } else {
        clear(head_.shape(), map);
    }
    update_map(work, map, is_first);
}

// Also what each token reads of the map, and its query for what stands before; nothing does: is_first.
void MatrixHead::update_map(const RecurrentWork& work, float* map, bool is_first) const {
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
            chunk_->apply(map, d_v_, true, out_of(token), shape.n_head * d_v_);
            chunk_->apply(map + d_k_ * d_v_, d_k_, false, is_first ? nullptr : query_of(token), d_k_);
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

// Adds what the tokens read of the runs before their own.
void MatrixHead::read(const RecurrentView& view) const {
    const RecurrentWork& first = plan_.works[static_cast<size_t>(view.first_work)];
    const RecurrentWork& last = plan_.works[static_cast<size_t>(view.first_work + view.n_works - 1)];
    if (2 * (last.first_token + last.n_tokens - first.first_token) > d_k_) {
        return read_composed(view);
    }
    read_back(plan_, view, 1,
              [&](int64_t token, const RecurrentRun& run, bool is_first) { read_run(token, run, is_first); });
}

void MatrixHead::read_run(int64_t token, const RecurrentRun& run, bool is_first) const {
    if (run.is_rows()) {
        const auto back = head_.shape().kind == RecurrenceKind::delta ? loops_.delta_back : loops_.wkv7_back;
        return back(head_.rows(run), query_of(token), out_of(token));
    }
    read_map(token, head_.map(run.data), is_first);
}

// Behind the first run of a view nothing is left to read: its matrix is of no use.
void MatrixHead::read_map(int64_t token, const float* map, bool is_first) const {
    float* query = query_of(token);
    loops_.multiply(1, d_v_, d_k_, {query, 0, 1}, map, d_v_, out_of(token), d_v_);
    if (!is_first) {
        std::fill_n(next_, d_k_, 0.0f);
        loops_.multiply(1, d_k_, d_k_, {query, 0, 1}, map + d_v_ * d_k_, d_k_, next_, d_k_);
        std::copy_n(next_, d_k_, query);
    }
}

// Runs from the first to the last; their states are composed.
void MatrixHead::read_composed(const RecurrentView& view) const {
    bool is_first = true;
    const auto pass = [&](const RecurrentRun& run) {
        if (is_first) {
            std::fill_n(state_, d_k_ * d_v_, 0.0f);
        }
        go_on(run, is_first);
        is_first = false;
    };
    for (int32_t i = 0; i < view.n_links; i++) {
        pass(plan_.links[static_cast<size_t>(view.first_link + i)]);
    }
    for (int32_t i = 0; i < view.n_works; i++) {
        const RecurrentWork& work = plan_.works[static_cast<size_t>(view.first_work + i)];
        for (int64_t k = 0; work.before.is_rows() && k < work.n_tokens; k++) {
            read_run(work.first_token + k, work.run(k + 1), is_first);
        }
        if (!is_first) {
            loops_.multiply(work.n_tokens, d_v_, d_k_, {query_of(work.first_token), d_k_, 1}, state_, d_v_,
                            out_of(work.first_token), head_.shape().n_head * d_v_);
        }
        if (i + 1 < view.n_works) {
            pass(work.run());
        }
    }
}

// state_: behind one more run.
void MatrixHead::go_on(const RecurrentRun& run, bool is_first) const {
    if (run.is_rows()) {
        return pass_on(chunk_.get(), head_.rows(run), state_, nullptr);
    }
    const float* map = head_.map(run.data);
    if (!is_first) {
        std::copy_n(state_, d_k_ * d_v_, next_);
    }
    std::copy_n(map, d_k_ * d_v_, state_);
    if (!is_first) {
        loops_.multiply(d_k_, d_v_, d_k_, {map + d_k_ * d_v_, d_k_, 1}, next_, d_v_, state_, d_v_);
    }
}

void join_matrices(const Recurrence& recurrence, const std::vector<RecurrentRun>& runs, float* out) {
    const RecurrenceShape& shape = recurrence.shape;
    const int64_t n_state = shape.d_k * shape.d_v;
    const int64_t n_matrix = shape.d_k * shape.d_k;
    std::vector<float> before(static_cast<size_t>(n_state + n_matrix));
    std::vector<float> scratch(chunk_floats(shape));
    const std::unique_ptr<MatrixChunk> chunk = make_chunk(shape, scratch.data());
    const StateLoops& loops = state_loops();
    for (int64_t number = 0; number < shape.n_head; number++) {
        const Head head(recurrence, number);
        float* state = head.map(out);
        float* matrix = state + n_state;
        if (runs.front().is_rows()) {
            clear(shape, state);
        } else {
            std::copy_n(head.map(runs.front().data), n_state + n_matrix, state);
        }
        for (size_t i = runs.front().is_rows() ? 0 : 1; i < runs.size(); i++) {
            if (runs[i].is_rows()) {
                pass_on(chunk.get(), head.rows(runs[i]), state, matrix);
                continue;
            }
            const float* map = head.map(runs[i].data);
            const Matrix by = {map + n_state, shape.d_k, 1};
            std::copy_n(state, n_state + n_matrix, before.data());
            std::copy_n(map, n_state, state);
            std::fill_n(matrix, n_matrix, 0.0f);
            loops.multiply(shape.d_k, shape.d_v, shape.d_k, by, before.data(), shape.d_v, state, shape.d_v);
            loops.multiply(shape.d_k, shape.d_k, shape.d_k, by, before.data() + n_state, shape.d_k, matrix, shape.d_k);
            loops.scale(state, n_state + n_matrix, 1.0f);
        }
    }
}

}  // namespace hw
