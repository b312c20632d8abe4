// The plain data that the attention kernel works on. Nothing here emits code, so that the sources compiled for wider
// instruction sets can include it (no std:: containers: the linker could keep their wide copies for everybody).
#pragma once

#include <cstddef>
#include <cstdint>

namespace hw {

// A run of cells of the cache that some query of this pass sees. At most 2^24 cells (key numbers are kept in floats).
struct AttnBlock {
    int32_t cell;        // first cell
    int32_t n_cells;     // cells, those written in this very pass included
    int32_t first_pair;  // its pairs are pairs[first_pair .. first_pair + n_pairs)
    int32_t n_pairs;
};

// One query token looking at one block: it sees the keys [first, last) of the block (counted inside the block).
// A token may have several pairs with one block, if they do not overlap. An empty range is no pair at all.
struct AttnPair {
    int32_t token;     // output row
    int32_t query;     // row of the query tensor (= token, unless queries come already rotated, one row a pair)
    int32_t angle;     // row of the rotation table (unused without rotation)
    int32_t first;     // first key seen
    int32_t last;      // one past the last key seen
    int32_t distance;  // position of the query minus the start of the block, both in the token's view (for ALiBi)
};

struct AttnShape {
    int32_t n_tokens;
    int32_t n_head;
    int32_t n_head_kv;  // divides n_head; query head h uses KV head h / (n_head / n_head_kv)
    int32_t d_k;        // size of a query and of a key
    int32_t d_v;        // size of a value and of an output
};

enum class AttnRope : int32_t {
    none,      // queries come as they are to be used
    adjacent,  // pairs (2i, 2i+1); c, s = table[2i], table[2i+1]
    halves,    // pairs (i, i + n_rot/2); c, s = table[i], table[i + n_rot/2]
};

// Keys or values of one layer: element (d, cell, KV head), d contiguous, the other strides in bytes.
struct AttnCache {
    const void* data;
    size_t nb_cell;
    size_t nb_head;
    int32_t type;  // a ggml_type: F32, F16, or any that ggml can convert to float
};

// What one layer attends with. Arrays belong to the caller.
struct AttnTensors {
    const float* q;  // (d_k, n_head, query rows), d contiguous, the other strides in bytes
    size_t q_nb_head;
    size_t q_nb_row;
    AttnRope rope;
    int32_t n_rot;        // even, <= d_k; the other dimensions pass unrotated
    const float* angles;  // (n_rot, angle rows): cosines and sines, as AttnRope says
    size_t angles_nb_row;
    int32_t hadamard;  // > 0: rotated queries are multiplied by the Hadamard matrix of that size, as the keys were
    AttnCache k;
    AttnCache v;
    float scale;         // of the scores
    float softcap;       // > 0: score = softcap * tanh(score / softcap)
    float max_bias;      // > 0: ALiBi, slopes as ggml computes them
    const float* sinks;  // [n_head] or null: scores that join the denominator only
    float* out;          // (d_v, n_head, n_tokens), contiguous
};

// ------------------------------------------------------------------------------------------ between plan and kernel

// The part of one block that the tokens of a task see.
struct AttnSegment {
    int32_t cell;           // cell of the block's key 0
    int32_t begin;          // first key that any token sees
    int32_t end;            // one past the last
    int64_t offset;         // keys of the task's segments before this one
    const AttnPair* pairs;  // [tokens of the task's track], one each, in the track's order
};

// One KV head, some rows of queries, some keys. A row is one query head of one token: row r is token r / group of the
// track, query head kv_head * group + r % group.
struct AttnTask {
    const AttnSegment* segments;
    int32_t n_segments;
    int32_t kv_head;
    int32_t first_row;
    int32_t n_rows;     // <= AttnIsa::max_rows
    int64_t key_begin;  // of the keys of all segments, one after the other
    int64_t key_end;
    const AttnTask* later;  // what the thread will probably do next, or null: fetched ahead, at no other use
};

// The slope of ALiBi for a head, as ggml computes it.
float attn_slope(float max_bias, int32_t n_head, int32_t head);

// The result of a task: partial[row * (d_v + 2)] = largest score, sum of exp(score - largest), then the d_v sums of
// values weighted with exp(score - largest). A row that saw nothing has sum 0 and zeros.
constexpr int32_t attn_partial_extra = 2;

// The kernel, compiled for one instruction set.
struct AttnIsa {
    const char* name;
    int32_t width;      // floats in a vector
    int32_t max_rows;   // rows that a task may have
    int32_t tile_keys;  // keys that are attended to at a time; chunks are cut at multiples
    size_t (*scratch_floats)(const AttnShape& shape);
    // scratch: 64-byte aligned, one per thread; partial: [task.n_rows][2 + d_v]
    void (*run)(const AttnShape& shape, const AttnTensors& tensors, const AttnTask& task, float* scratch,
                float* partial);
};

}  // namespace hw
