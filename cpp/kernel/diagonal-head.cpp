#include "kernel/diagonal-head.h"

#include <algorithm>
#include <vector>

namespace hw {

namespace {

// x [d_k], decayed.
void decay(const RecurrenceShape& shape, const float* decays, float* x) {
    for (int64_t i = 0; i < shape.d_k; i++) {
        x[i] = flushed(x[i] * decays[shape.n_decay == 1 ? 0 : i]);
    }
}

// state, and decays unless NULL, behind a run. reads: [d_v], of no use.
void go_on(const Head& head, const RecurrentRun& run, float* decays, float* state, float* reads) {
    const RecurrenceShape& shape = head.shape();
    const auto decayed = [&](const float* by) {
        for (int64_t i = 0; decays != nullptr && i < shape.n_decay; i++) {
            decays[i] = flushed(decays[i] * by[i]);
        }
    };
    if (run.is_rows()) {
        const TokenRows rows = head.rows(run);
        for (int64_t i = 0; i < rows.n; i++) {
            const float* key = rows.rows + i * rows.stride;
            const float* value = key + shape.d_k;
            const float* by = value + shape.d_v;
            state_loops().scan(state, shape.d_v, shape.d_k, by, shape.n_decay, value, key, key, reads);
            decayed(by);
        }
        return;
    }
    const float* by = head.state(run.data);
    const float* added = by + shape.n_decay;
    for (int64_t i = 0; i < shape.d_v * shape.d_k; i++) {
        state[i] = state[i] * by[shape.n_decay == 1 ? 0 : i % shape.d_k] + added[i];
    }
    decayed(by);
}

}  // namespace

DiagonalHead::DiagonalHead(const RecurrentPlan& plan, const Recurrence& recurrence, const DiagonalTokens& tokens,
                           const ReadOrder& order, float* scratch, int64_t head)
    : plan_(plan),
      head_(recurrence, head),
      shape_(recurrence.shape),
      tokens_(tokens),
      bonus_(tokens.bonus()),
      order_(order),
      queries_(scratch),
      state_(queries_ + plan.n_tokens * shape_.d_k),
      row_(state_ + shape_.d_v * shape_.d_k),
      reads_(row_ + shape_.n_row()) {}

void DiagonalHead::run() const {
    for (const RecurrentView& view : plan_.views) {
        for (int32_t i = 0; i < view.n_works; i++) {
            update(plan_.works[static_cast<size_t>(view.first_work + i)], view);
        }
    }
    for (const RecurrentView& view : plan_.views) {
        if (order_.leaves_out(plan_, view)) {
            read_composed(view);
        }
    }
    order_.each(1, [&](const ReadOrder::Read* read, int64_t) { read_run(read->token, read->run); });
}

// The run with the tokens of the pass; of a map also what each of them reads of it, and its query for what stands
// before.
void DiagonalHead::update(const RecurrentWork& work, const RecurrentView& view) const {
    if (work.before.is_rows()) {
        for (int64_t i = 0; i < work.n_tokens; i++) {
            float* row = head_.row(work, i);
            tokens_.put_row(work.first_token + i, row);
            begin(work.first_token + i, row);
        }
        return;
    }
    float* decays = head_.state(work.after);
    float* state = decays + shape_.n_decay;
    if (work.before.data != nullptr) {
        std::copy_n(head_.state(work.before.data), shape_.n_decay + shape_.d_v * shape_.d_k, decays);
    } else {
        std::fill_n(decays, shape_.n_decay, 1.0f);
        std::fill_n(state, shape_.d_v * shape_.d_k, 0.0f);
        if (work.before.is_state) {
            go_on_links(view, state);
        }
    }
    for (int64_t token = work.first_token; token < work.first_token + work.n_tokens; token++) {
        step(token, decays, state);
    }
}

// The query of a token, and what it reads of itself beside its run.
void DiagonalHead::begin(int64_t token, const float* row) const {
    const float* query = query_of(token);
    float* y = tokens_.out(token);
    tokens_.put_query(token, query_of(token));
    float seen = 0.0f;
    for (int64_t i = 0; bonus_ != nullptr && i < shape_.d_k; i++) {
        seen += bonus_[i] * query[i] * row[i];
    }
    std::transform(row + shape_.d_k, row + shape_.d_k + shape_.d_v, y, [=](float value) { return seen * value; });
}

void DiagonalHead::step(int64_t token, float* decays, float* state) const {
    tokens_.put_row(token, row_);
    begin(token, row_);
    if (bonus_ != nullptr) {
        read_map(token, decays, state);
    }
    const float* value = row_ + shape_.d_k;
    const float* by = value + shape_.d_v;
    float* reads = bonus_ != nullptr ? reads_ : tokens_.out(token);
    loops_.scan(state, shape_.d_v, shape_.d_k, by, shape_.n_decay, value, row_, query_of(token), reads);
    for (int64_t i = 0; i < shape_.n_decay; i++) {
        decays[i] = flushed(decays[i] * by[i]);
    }
    if (bonus_ == nullptr) {
        decay(shape_, decays, query_of(token));
    }
}

// state, behind the links of a view.
void DiagonalHead::go_on_links(const RecurrentView& view, float* state) const {
    for (int32_t i = 0; i < view.n_links; i++) {
        go_on(head_, plan_.links[static_cast<size_t>(view.first_link + i)], nullptr, state, reads_);
    }
}

// Adds what a token reads of a run before it.
void DiagonalHead::read_run(int64_t token, const RecurrentRun& run) const {
    if (run.is_rows()) {
        return state_loops().diagonal_back(head_.rows(run), query_of(token), tokens_.out(token));
    }
    const float* decays = head_.state(run.data);
    read_map(token, decays, decays + shape_.n_decay);
}

void DiagonalHead::read_map(int64_t token, const float* decays, const float* state) const {
    add_read(token, state);
    decay(shape_, decays, query_of(token));
}

void DiagonalHead::add_read(int64_t token, const float* state) const {
    loops_.read(state, shape_.d_v, shape_.d_k, query_of(token), reads_);
    float* y = tokens_.out(token);
    std::transform(y, y + shape_.d_v, reads_, y, [](float a, float b) { return a + b; });
}

// Runs from the first to the last; their states are composed.
void DiagonalHead::read_composed(const RecurrentView& view) const {
    std::fill_n(state_, shape_.d_v * shape_.d_k, 0.0f);
    go_on_links(view, state_);
    for (int32_t i = 0; i < view.n_works; i++) {
        const RecurrentWork& work = plan_.works[static_cast<size_t>(view.first_work + i)];
        for (int64_t k = 0; k < work.n_tokens; k++) {
            if (work.before.is_rows()) {
                read_run(work.first_token + k, work.run(k + order_.n_itself()));
            }
            add_read(work.first_token + k, state_);
        }
        go_on(head_, work.run(), nullptr, state_, reads_);
    }
}

size_t diagonal_scratch(const RecurrenceShape& shape, int32_t n_tokens) {
    return static_cast<size_t>((n_tokens + shape.d_v) * shape.d_k + shape.n_row() + shape.d_v);
}

void join_diagonals(const Recurrence& recurrence, const std::vector<RecurrentRun>& runs, float* out) {
    const RecurrenceShape& shape = recurrence.shape;
    std::vector<float> reads(static_cast<size_t>(shape.d_v));
    for (int64_t number = 0; number < shape.n_head; number++) {
        const Head head(recurrence, number);
        float* decays = head.state(out);
        float* state = decays + shape.n_decay;
        std::fill_n(decays, shape.n_decay, 1.0f);
        std::fill_n(state, shape.d_v * shape.d_k, 0.0f);
        for (const RecurrentRun& run : runs) {
            go_on(head, run, decays, state, reads.data());
        }
    }
}

}  // namespace hw
