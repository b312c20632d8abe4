// One forward pass as numbers: which tokens are fed, where their keys go, and which query sees which keys.
//
// Layers with a sliding window have cells of their own (engine/cell-space.h), and so a pass of their own: its tokens
// and groups are the same, its blocks are what some window sees of them.
//
// Tokens stand in the order of groups, not of views: each group of views is attended to on its own.
//
// Made by the cache from views and block lengths, read by the graphs. In the view of a worker the blocks stand one
// after another. A block's keys are stored as if it began at a position of its own, its origin, so a query at position
// i_q of the view looks at a block that begins at i_b with the rotation of i_q - i_b + origin, and sees key l iff
// l <= i_q - i_b (arXiv 2504.06261, with origin 0).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "cache/block-table.h"
#include "hogwild.h"
#include "model/layer-spec.h"

namespace hw {

// A run of cells that somebody sees in this pass, the cells written by this pass included: a block, or its end, or the
// blocks that were made of one by splitting it, where every view has them one behind the other.
struct PassBlock {
    int64_t begin;
    int64_t n_cells;
    int64_t origin;
};

// A token looking at a block: it sees its keys [0, n_visible).
struct PassPair {
    int32_t token;
    int32_t block;     // index into Pass::blocks
    int32_t distance;  // i_q - i_b
    int32_t n_visible;
};

// A copy of a block in free cells, its keys turned on, as the views need it in which the block does not begin at its
// origin.
struct Mirror {
    int32_t block;     // index into Pass::blocks
    int32_t turn;      // by how many positions
    int64_t to;        // its first cell
    int64_t room;      // cells from there on that no other mirror is put into, lest it have to move when it grows
    int64_t n_keys;    // those of its first cells are there already, turned like this
    int64_t n_values;  // and those of values
};

// Views that share no block with any other's: their tokens, blocks and pairs lie side by side.
struct PassGroup {
    int32_t first_token;
    int32_t n_tokens;
    int32_t first_block;  // in Pass::blocks
    int32_t n_blocks;
    int32_t first_pair;  // in Pass::pairs
    int32_t n_pairs;
};

// The tokens that a view feeds.
struct PassView {
    int32_t first_token;
    int32_t n_tokens;
};

// The cells that one flash attention reads.
struct FlashRun {
    int64_t begin;    // first cell
    int64_t n_cells;  // a multiple of what flash attention kernels take at once

    bool operator==(const FlashRun& other) const { return begin == other.begin && n_cells == other.n_cells; }
};

// How flash attention computes a pass, one over one run of cells for each group, see attention/flash-plan.h.
struct FlashPlan {
    std::vector<FlashRun> runs;  // of each group
    std::vector<Mirror> mirrors;
    int64_t n_mirrored;             // cells of all mirrors
    int64_t n_keys;                 // of them, those whose keys are to be copied and turned
    int64_t n_values;               // and those whose values are to be copied
    std::vector<int64_t> key_cell;  // [pairs] where key 0 of the pair's block lies
};

struct Pass {
    std::vector<int32_t> tokens;          // [T]
    std::vector<int32_t> positions;       // [T] that its key is rotated to: its place in its block, plus the origin
    std::vector<int32_t> view_positions;  // [T] inside the view
    std::vector<int64_t> cells;           // [T] where its key and value go
    std::vector<int32_t> outputs;         // [O] index of each token whose logits are wanted, in the order of the views
    std::vector<PassView> views;          // in the order of the call
    std::vector<PassBlock> blocks;
    std::vector<PassPair> pairs;    // of one token after the other, in the order of its view
    std::vector<PassGroup> groups;  // the largest last
    int32_t max_pairs = 0;          // of one token
    std::optional<FlashPlan> flash;

    // By how many positions keys would have to be turned on to stand where their block begins in the token's view.
    int32_t key_turn(const PassPair& pair) const {
        const int64_t begin = view_positions[static_cast<size_t>(pair.token)] - pair.distance;
        return static_cast<int32_t>(begin - blocks[static_cast<size_t>(pair.block)].origin);
    }
    // By how many positions a query is rotated for a block instead; has_position: beside its position in the view.
    int32_t query_turn(const PassPair& pair, bool has_position) const {
        return (has_position ? 0 : view_positions[static_cast<size_t>(pair.token)]) - key_turn(pair);
    }
    // The rows of each group in a graph of n_rows: the last one has those that fill up.
    std::vector<int32_t> rows_of_groups(int32_t n_rows) const {
        std::vector<int32_t> rows;
        for (const PassGroup& group : groups) {
            rows.push_back(group.n_tokens);
        }
        rows.back() += n_rows - n_tokens();
        return rows;
    }
    int32_t n_tokens() const { return static_cast<int32_t>(tokens.size()); }
    int32_t n_outputs() const { return static_cast<int32_t>(outputs.size()); }
};

// The block that a view's tokens go to.
inline int32_t own_block(const hw_view& view) { return view.blocks[view.n_blocks - 1]; }

// Where an empty block that these views fill is to have its origin: it begins there in one of them, so that this one at
// least needs no turn. The leftmost: it moves least as other blocks grow.
int64_t origin_for(const BlockTable& table, const hw_view* views, int32_t n_views, int32_t block);

// The pass of checked views in the layers with this window; the own blocks have their origin, and room for their tokens
// (BlockTable::reserve).
Pass make_pass(const BlockTable& table, const Window& window, const hw_view* views, int32_t n_views);

}  // namespace hw
