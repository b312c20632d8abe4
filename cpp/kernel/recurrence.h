// Recurrent layers on the CPU: what the tokens of a pass do to states, and what they read of those of their views.
// Knows no ggml graph.
//
// What a run of tokens does to the state before it is an affine map. It is stored once, as keys are, whoever stands
// before the run, and composed in the order of any view:
//
//   kind          a token                                             map of a run
//   convolution   is an input that the next d_k outputs see           its last d_k inputs
//   diagonal      S <- p S + x b^T           y = S c                  product of the p; S from nothing
//   delta         S <- A S + beta k v^T      y = S^T q / sqrt(d_v)    product A of the A; S from nothing
//                 A = (I - beta k k^T) diag(g)
//   linear        S <- diag(w) S + k v^T     y = S^T q, see below     product of the w; S from nothing
//   wkv7          S <- A S + k v^T           y = S^T r                 as delta
//                 A = diag(w) + b a^T
//
// The linear kind is linear attention: MiniMax's lightning attention, where w is a number of the head; gated linear
// attention, where it is a vector of the token; RWKV-6, where it is that too and a token reads S as it was before it,
// and of its own k v^T as much as a bonus u says: y = (S_before + diag(u) k v^T)^T q. A convolution without weights is
// RWKV's token shift: d_k is 1, and what is read is the input before.
//
// A run of few tokens is kept as what its tokens were, a row each: that takes less to write and to read than a map, a
// row is added where the others lie, and the run can be cut anywhere, for a row knows nothing of the others.
//
// What stands behind the same tokens in every view, as a prompt does, is kept as a state: S as all of them leave it,
// from the begin of the view on. It is half as large where a map has a matrix, and takes half as long; nothing before
// it is read.
//
// As in attention, all runs take the tokens of the pass first; then every token reads through its view:
//
//   y = q (its own run up to itself) + (q A of that) (the run before) + ...       vectors by matrices, or, for many
//   y = q (its own run up to itself) + (q A of that) (all runs before, composed)  tokens, matrices once
//
// through rows by vectors alone, from the last one back, as in a delta net: y += beta (q k) v;
// q <- diag(g) (q - beta (q k) k).
//
// All numbers are F32. Heads (channels of a convolution) know nothing of each other: each thread takes some of them,
// all the way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hw {

// The most inputs that an output of a convolution may see before its own.
constexpr int64_t max_convolution = 32;

enum class RecurrenceKind : int32_t { convolution, diagonal, delta, linear, wkv7 };

// A map, and the rows of a run:
//   convolution       [d_k, n_head]                        inputs, the newest first
//                     rows [n_room, n_head]                an input each
//   diagonal, linear  [n_head, n_decay + d_v * d_k]        decays, then S [d_v, d_k]
//                     rows [n_head, n_room, n_row()]       b, x, decays; k, v, w
//   delta, wkv7       [n_head, d_k, d_v]                   S; and [n_head, d_k, d_k]: A
//                     rows [n_head, n_room, n_row()]       k, v, decays, beta; k, v, w, a, b
//
// The matrices A of all recurrences stand behind all else: a state is a map without them.
struct RecurrenceShape {
    RecurrenceKind kind;
    int64_t n_head;   // convolution: channels
    int64_t d_k;      // convolution: inputs before its own that an output sees
    int64_t d_v;      // convolution: 1
    int64_t n_decay;  // decays of a head, 1 or d_k (wkv7: d_k); convolution: 0
    float scale = 1;  // linear: of what is read
    float slope = 0;  // linear, with one decay a head: exp(-slope m), where m is the head's slope of ALiBi

    size_t n_state_floats() const;   // numbers of a map, but for
    size_t n_matrix_floats() const;  // its A
    int64_t n_row() const;           // of a row, of a head; convolution: of all
    size_t n_row_floats() const;     // of a row, of all heads
    bool operator==(const RecurrenceShape& other) const;
};

// One recurrence of a model.
struct Recurrence {
    RecurrenceShape shape;
    size_t offset;         // of its part of a map of all
    size_t matrix_offset;  // of its A
    size_t rows_offset;    // of its part of a row of all
    int64_t n_rows;        // that a run of rows may have; 0: there are none
};

// Numbers of all: of a map, a state, a row. 0 where there are no recurrences.
size_t map_floats(const std::vector<Recurrence>& recurrences);
size_t state_floats(const std::vector<Recurrence>& recurrences);
size_t row_floats(const std::vector<Recurrence>& recurrences);

// Sets all but the shapes. n_rows: as many as take the place of a map, but for few.
constexpr int64_t most_rows = 64;
constexpr int64_t least_rows = 4;
void lay_out(std::vector<Recurrence>* recurrences);
// For tests: so many rows.
void lay_out(std::vector<Recurrence>* recurrences, int64_t n_rows);

// What tokens one behind the other do to states. data: of all recurrences.
struct RecurrentRun {
    const float* data;  // a map, a state, or rows
    int64_t n_tokens;   // of a state, all from the begin of the view on
    int64_t n_room;     // rows that there is room for where they lie; 0: it is a map, or a state
    int64_t first_row;  // where the run begins in them
    bool is_state = false;

    bool is_rows() const { return n_room > 0; }
};

// Tokens of a pass, side by side, that go to the end of a run.
struct RecurrentWork {
    RecurrentRun before;  // the run without them, of the same form; no data: it begins with them, a state behind the
                          // links of the view
    float* after;         // the run with them, written: another map or state, or the rows of `before`
    int32_t first_token;
    int32_t n_tokens;

    // With the first n of them.
    RecurrentRun run(int64_t n) const {
        return {after, before.n_tokens + n, before.n_room, before.first_row, before.is_state};
    }
    RecurrentRun run() const { return run(n_tokens); }
};

struct RecurrentView {
    int32_t first_link;  // runs before its own tokens, first to last, with their tokens of this pass; only the first
    int32_t n_links;     // may be a state
    int32_t first_work;  // one behind the other, its tokens too; what the first one adds to is no link
    int32_t n_works;     // all or none make states
    // Room for the state that the links leave, all of them joined, where the works are computed from that. NULL: there
    // are no links, or one that is a state; or the works are computed from the links.
    float* begin = nullptr;
};

struct RecurrentPlan {
    std::vector<RecurrentWork> works;
    std::vector<RecurrentRun> links;
    std::vector<RecurrentView> views;
    int32_t n_tokens = 0;
};

// Numbers of scratch that each thread needs for plans of so many tokens.
size_t recurrent_scratch(const RecurrenceShape& shape, int32_t n_tokens);

// Strides in bytes.
struct ConvolutionTensors {
    const float* x;  // [tokens, channels]
    size_t x_nb_token;
    const float* weights;  // [channels, d_k + 1], the oldest input first; NULL: a shift
    float* out;            // [tokens, channels]
};

struct DiagonalTensors {
    const float* x;  // [tokens, heads, d_v]
    size_t x_nb_token;
    const float* dt;  // [tokens, heads], before softplus
    size_t dt_nb_token;
    const float* a;  // [heads, n_decay]: decays are exp(dt a)
    const float* b;  // [tokens, groups, d_k]
    size_t b_nb_token;
    const float* c;
    size_t c_nb_token;
    int64_t n_group;  // divides the heads; head h uses group h / (n_head / n_group)
    float* out;       // [tokens, heads, d_v]
};

// Numbers of tokens for each head.
struct HeadRows {
    const float* data;  // [tokens, heads, d]
    size_t nb_token;
    size_t nb_head;
    int64_t n_head;  // head h uses head h % n_head

    const float* at(int64_t token, int64_t head) const;
};

struct DeltaTensors {
    HeadRows q;
    HeadRows k;
    HeadRows v;
    HeadRows g;     // logarithms of decays, [n_decay]
    HeadRows beta;  // [1]
    float* out;     // [tokens, heads, d_v]
};

struct LinearTensors {
    HeadRows q;
    HeadRows k;
    HeadRows v;
    HeadRows decays;     // [d_k]; data is NULL where heads have one each
    const float* bonus;  // [heads, d_k]; NULL: a token reads what it has written as it reads all else
    float* out;          // [tokens, heads, d_v]
};

struct Wkv7Tensors {
    HeadRows r;
    HeadRows decays;
    HeadRows k;
    HeadRows v;
    HeadRows a;
    HeadRows b;
    float* out;  // [tokens, heads, d_v]
};

// One recurrence of a pass, the part of thread ith of nth. scratch: of this thread.
void run_convolution(const RecurrentPlan& plan, const Recurrence& recurrence, const ConvolutionTensors& tensors,
                     int ith, int nth);
void run_diagonal(const RecurrentPlan& plan, const Recurrence& recurrence, const DiagonalTensors& tensors,
                  float* scratch, int ith, int nth);
void run_delta(const RecurrentPlan& plan, const Recurrence& recurrence, const DeltaTensors& tensors, float* scratch,
               int ith, int nth);
void run_linear(const RecurrentPlan& plan, const Recurrence& recurrence, const LinearTensors& tensors, float* scratch,
                int ith, int nth);
void run_wkv7(const RecurrentPlan& plan, const Recurrence& recurrence, const Wkv7Tensors& tensors, float* scratch,
              int ith, int nth);

// out: the map of runs, one behind the other, or the state, where the first one is. Another one than theirs.
void join_runs(const Recurrence& recurrence, const std::vector<RecurrentRun>& runs, float* out);
// Copies a run of rows behind the n_tokens of another one, which has room for them.
void copy_rows(const Recurrence& recurrence, const RecurrentRun& run, const RecurrentRun& before, float* rows);

}  // namespace hw
