// What the tokens of each block do to the states of recurrent layers, beside its keys and values.
//
// A block is a list of segments, first to last, each with a map (kernel/recurrence.h):
//
//   block    0          64         128   140 141
//            | map      | map      | map | map          cuts: 0, 64, 128, 140, 141
//
// A map cannot be cut: a block is split and truncated where one segment ends and the next begins. Segments of maps
// begin where many tokens are fed at once, every so many of those, before the last of them (a run parts from its prompt
// there), and where somebody has marked the block. There are at most some of them, fewer where maps are large: then
// neighbours are joined, the shortest first, those that end at a mark last.
//
// The newest tokens of a block, if they were fed a few at a time, are a segment of rows, which can be cut anywhere. A
// pass adds its rows behind those that are there, which nobody reads until they are counted, so blocks share rows as
// they share maps: one of them goes on where they lie, the others copy them.
//
// What is anchored stands behind the same tokens in every view, as a prompt does: many tokens that are fed to it at
// once become segments with states, of which a view reads the last one alone, and nothing before it. A view that has
// them elsewhere is refused: each says behind which other state it stands, and how many tokens.
//
// Joining takes as long as a pass does, so it is done ahead, a few recurrences in each pass (cache/map-joins.cpp): rows
// to the map before them when there are three quarters of those that there may be; steps that were appended; and a
// block that is read again and again as it is, a prompt mostly, gets one map more, of all of its segments: it costs a
// pass no more than one segment then.
//
// Models without recurrent layers have none of this: all calls answer at once, and blocks can be cut anywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include "base/thread-pool.h"
#include "cache/map-pool.h"
#include "kernel/recurrence.h"

namespace hw {

// Rows of tokens, which several runs may be part of.
struct Rows {
    Map data;
    int64_t n_room;
    int64_t n_filled;
};

// Where a state stands.
struct Anchor {
    uint64_t id;       // of the state, not 0; joined to what follows it, it keeps that
    uint64_t behind;   // the id of the last state before it in its views; 0: there is none
    int64_t n_before;  // tokens before it in its views
};

struct Segment {
    int64_t n_tokens;
    Map map;                 // NULL: it has rows
    bool is_marked = false;  // its end
    std::shared_ptr<Rows> rows = nullptr;
    int64_t first_row = 0;
    bool is_appended = false;                     // to the segment before, and to be joined to it
    std::optional<Anchor> anchor = std::nullopt;  // it is a state

    RecurrentRun run() const {
        return {map ? map.get() : rows->data.get(), n_tokens + (anchor ? anchor->n_before : 0), rows ? rows->n_room : 0,
                first_row, anchor.has_value()};
    }
};

using Segments = std::vector<Segment>;

// Of a block, before a pass adds some: what their maps take, and so many whatever they take.
constexpr size_t most_map_bytes = size_t(256) << 20;
constexpr size_t least_segments = 4;
constexpr size_t most_segments = 12;

int64_t length(const Segments& segments);  // in tokens

// Tokens that a view feeds its own block, the last of `blocks`.
struct FedView {
    const int32_t* blocks;
    int32_t n_blocks;
    int32_t first_token;  // in the pass
    int32_t n_tokens;
};

// Segments that are being joined, which changes nothing of what a block holds.
struct Join {
    int32_t block;
    Segments parts;  // one behind the other in the block; of the last one, rows may have been added
    bool is_whole;   // all that is read of the block, beside its segments; or in the place of the parts
    Map map = nullptr;
    size_t n_done = 0;  // recurrences
};

// The recurrent part of a pass, which is computed into new maps.
struct MapPass {
    RecurrentPlan plan;
    std::map<int32_t, Segments> after;  // of the own blocks
    std::vector<Map> begins;            // of views, see RecurrentView
};

class BlockMaps {
  public:
    // pool: joins maps, must outlive this object; NULL: the caller's thread does.
    explicit BlockMaps(std::vector<Recurrence> recurrences, ThreadPool* pool = nullptr);

    bool is_used() const { return !recurrences_.empty(); }
    // is_anchored: it stands behind the same tokens in every view. n_segments: room for so many.
    void add(int32_t block, bool is_anchored = false, size_t n_segments = 0);
    void remove(int32_t block);

    // The last place at or before n where a block can be cut.
    int64_t last_cut(int32_t block, int64_t n) const;
    // Throws HW_ERROR_ARGUMENT unless a block can be cut at n.
    void check_cut(int32_t block, int64_t n) const;
    // What is fed to the block from now on is a segment of its own.
    void mark(int32_t block);
    bool is_anchored(int32_t block) const { return is_used() && blocks_.at(block).is_anchored; }
    // At a place where it can be cut. tail: was added with room for the segments of the block.
    void truncate(int32_t block, int64_t n);
    void split(int32_t block, int64_t n, int32_t tail);

    // The segments of dst with those of src behind them. Throws HW_ERROR_ARGUMENT if those have states,
    // HW_ERROR_MEMORY.
    Segments joined(int32_t dst, int32_t src) const;
    const Segments& of(int32_t block) const;
    void replace(int32_t block, Segments segments);

    // Of a pass; may join segments, which changes nothing of what blocks hold. Throws HW_ERROR_ARGUMENT (a state would
    // not stand where it belongs), HW_ERROR_MEMORY.
    MapPass plan(const std::vector<FedView>& views);
    // For who computes states from what their views' links leave. Throws HW_ERROR_MEMORY.
    void add_begins(MapPass* pass) const;
    void commit(MapPass pass);

    // As bytes (docs/block-format.md).
    size_t n_bytes(int32_t block) const;
    void read(int32_t block, std::byte* data) const;
    // Throws HW_ERROR_ARGUMENT unless these are the segments of so many tokens; HW_ERROR_MEMORY. Also whether the block
    // was anchored.
    Segments from_bytes(const std::byte* data, size_t n_bytes, int64_t n_tokens, bool* is_anchored) const;

    // What the blocks of a run take: a prompt that is cut as often as it may be and also one map, and four workers'
    // steps, each with its rows. More is asked for when it is needed.
    static size_t usual_bytes(const std::vector<Recurrence>& recurrences);
    size_t n_bytes_used() const;
    int64_t n_joined() const { return n_joined_; }  // recurrences of blocks, see map-joins.cpp

  private:
    struct Held {
        Segments segments;
        Segment whole = {0, nullptr};  // what is read of it as one; no tokens: not made
        int32_t n_reads = 0;           // passes that have read it since it has changed
        bool is_anchored = false;
    };

    size_t n_bytes(const Segment& segment) const;
    int64_t n_rows() const { return recurrences_.front().n_rows; }
    void each(size_t first, size_t n, const std::function<void(const Recurrence& recurrence)>& part) const;
    std::shared_ptr<Rows> new_rows(int64_t n) const;
    Segment as_map(const Segments& parts) const;
    Segment as_rows(const Segments& parts, int64_t n_more) const;
    Segment join(const Segment& first, const Segment& second) const;
    Segments& changed(int32_t block);

    std::optional<Join> tail_of(int32_t block, int64_t n_least) const;
    void go_on(Join* join, size_t n) const;
    void finish(const Join& join);
    bool begin_join(const std::set<int32_t>& fed, const std::set<int32_t>& read);
    void join_ahead(const std::vector<FedView>& views);
    void make_room(int32_t block, int32_t n_tokens);
    void thin(Segments* segments) const;

    bool fits_rows(int64_t n_tokens) const;
    size_t feed(const FedView& view, bool is_anchored, MapPass* pass);
    void feed_states(const FedView& view, MapPass* pass);
    Anchor checked_end(const FedView& view, const std::map<int32_t, Segments>& after) const;
    int64_t n_cuts() const { return static_cast<int64_t>(2 * most_segments_ / 3); }
    void feed_maps(const FedView& view, bool is_many, Segments* segments, RecurrentPlan* plan) const;
    void feed_rows(const FedView& view, bool is_only_owner, Segments* segments, RecurrentPlan* plan) const;
    void link(const FedView& view, size_t n_own, const MapPass& known, RecurrentView* linked,
              RecurrentPlan* plan) const;

    std::vector<Recurrence> recurrences_;
    ThreadPool* pool_;
    size_t most_segments_;
    mutable MapPool maps_;
    mutable MapPool states_;
    std::mt19937_64 ids_{std::random_device{}()};  // of states, which also stay apart where blocks come from elsewhere
    mutable std::map<int64_t, MapPool> rows_;      // by the rows that there is room for
    std::map<int32_t, Held> blocks_;
    mutable int64_t n_joined_ = 0;
    std::optional<Join> join_;  // one at a time: it takes a map
};

}  // namespace hw
