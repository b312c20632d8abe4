// Fused concurrent attention on the CPU: one softmax over the keys of several cache blocks, keys and values read once
// for all the queries that see them (Hogwild! inference, arXiv 2504.06261, section 3).
//
//   AttnPlan plan;
//   plan.build(isa, shape, blocks, n_blocks, pairs, n_threads);  // once a pass, on the host
//   for each layer, in every one of the threads:
//       attn_run(plan, tensors, ith, nth);
//
// The contract between passes and layers:
// - Block starts, lengths and visibilities are data: the same graph node serves every pass.
// - A plan serves all layers of one shape and one visibility, one after the other: its counters reset themselves when
//   the last thread leaves. So every thread must have left one run before any enters the next (ggml's barrier between
//   nodes does that), and build() may be called only while no thread is inside. After an abandoned run, build() again.
// - attn_run allocates nothing; build() allocates only when a pass is larger than all before it.
// - Results do not depend on which thread does what: the same inputs, ISA and planned n_threads give the same bits.
// - Cells that nobody sees may hold anything, NaN included. A token that sees no key gets zeros.
// - No check of arguments here; hw_attention (api/attention-c.cpp) has them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernel/task.h"

namespace hw {

// The kernels that this CPU can run, best first, null at the end. The last one is "generic".
const AttnIsa* const* attn_isas();

// By name; "auto" or null is the best one. Null if this CPU or build does not have it.
const AttnIsa* attn_isa(const char* name);

// The same in plain sight: doubles, no tiles, two passes of softmax. What the tests compare with.
void attn_plain(const AttnShape& shape, const AttnBlock* blocks, int32_t n_blocks, const AttnPair* pairs,
                const AttnTensors& tensors);

// Cuts the work of a pass into tasks. Blocks seen by the same tokens form a track. Its rows are cut into tiles and,
// where that gives too few tasks for the threads, its keys into chunks; a task is a tile, a chunk and a KV head. It
// gives a partial result for each of its rows; whoever finishes the last one of a row merges them, in a fixed order.
//
//                 keys of block 0 | block 1       keys of block 2           tokens 0, 1: members of both tracks
//     token 0     ---- tile 0 ---- ---- tile 0    ---- tile 0 ----          token 2: of the first one
//     token 1     -  chunk 0  ---- -  chunk 1     ----------------
//     token 2     ---- tile 1 ---- ---- tile 1
//                 track 0                         track 1
class AttnPlan {
  public:
    void build(const AttnIsa& isa, const AttnShape& shape, const AttnBlock* blocks, int32_t n_blocks,
               const AttnPair* pairs, int32_t n_threads);
    int32_t n_threads() const { return n_threads_; }
    int64_t n_tasks() const { return static_cast<int64_t>(tiles_.size()) * shape_.n_head_kv; }

  private:
    friend void attn_run(AttnPlan& plan, const AttnTensors& tensors, int32_t ith, int32_t nth);

    struct Track {
        int32_t first_token;  // in tokens_
        int32_t n_tokens;
        int32_t first_segment;  // in segments_
        int32_t n_segments;
        int32_t tile_rows;
        int32_t n_chunks;
        int64_t chunk_keys;
        int64_t n_keys;
        int64_t first_partial;  // in partials_; -1: rows have this one only, which needs no memory of its own
    };
    struct Tile {  // a task but for its KV head
        int32_t track;
        int32_t first_row;
        int32_t n_rows;
        int32_t chunk;
        double cost;
    };
    struct Member {  // a token in a track: the index'th of its tokens
        int32_t track;
        int32_t index;
    };

    void gather_tracks(const AttnBlock* blocks, int32_t n_blocks, const AttnPair* pairs);
    int32_t find_track(const AttnPair* pairs, int32_t n_pairs);
    void add_segments(int32_t track, const AttnBlock* blocks, int32_t n_blocks);
    void add_idle_tokens();
    void list_members();
    void tile_tracks();
    double tile_cost(const Track& track, int32_t first_row, int32_t n_rows) const;
    void reserve_memory();

    int32_t group() const { return shape_.n_head / shape_.n_head_kv; }
    int64_t partial_size() const { return shape_.d_v + attn_partial_extra; }
    int32_t n_partials(int32_t token) const;
    float* partial(const Track& track, int32_t chunk, int32_t kv_head, int64_t row);
    AttnTask task(int64_t id) const;
    void run_task(int64_t id, int64_t later, const AttnTensors& tensors, int32_t ith);
    void merge_row(int32_t token, int32_t head, const float* only, const AttnTensors& tensors, int32_t ith);

    const AttnIsa* isa_ = nullptr;
    AttnShape shape_ = {};
    int32_t n_threads_ = 0;
    int32_t max_partials_ = 0;  // of one row

    std::vector<AttnPair> pairs_;        // block after block, sorted by token, empty ones dropped
    std::vector<int32_t> block_pair_;    // [n_blocks + 1]: first of a block's pairs in pairs_
    std::vector<int32_t> block_track_;   // [n_blocks], -1: nobody sees it
    std::vector<int32_t> tokens_;        // track after track
    std::vector<AttnSegment> segments_;  // track after track
    std::vector<Track> tracks_;
    std::vector<Tile> tiles_;            // costly ones first
    std::vector<int32_t> first_member_;  // [n_tokens + 1]: a token's first one in members_
    std::vector<Member> members_;        // token after token, tracks ascending

    std::vector<float> partials_;              // [track][chunk][KV head][row][2 + d_v]
    std::vector<std::vector<float>> scratch_;  // [thread][isa's scratch + max_rows * (2 + d_v)]
    std::vector<const float*> merge_list_;     // [thread][max_partials_]

    std::atomic<int64_t> next_task_{0};
    std::atomic<int32_t> n_left_{0};  // threads that have left the run
    std::unique_ptr<std::atomic<int32_t>[]>
        finished_;  // [n_tokens][n_head]: partials done, for rows of several partials
    size_t n_finished_ = 0;
};

// Attention of one layer; every thread 0 <= ith < nth of a pool enters. Threads beyond the planned number go home at
// once; fewer than planned do all the work.
void attn_run(AttnPlan& plan, const AttnTensors& tensors, int32_t ith, int32_t nth);

}  // namespace hw
