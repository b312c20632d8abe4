// One forward pass as numbers: which tokens are fed, where their keys go, and which query sees which keys.
//
// Made by the cache from views and block lengths, read by the graphs. In the view of a worker the blocks stand one
// after another; a block's keys are stored as if it began at position 0, so a query at position i_q of the view looks
// at a block that begins at i_b with the rotation of distance i_q - i_b, and sees key l iff l <= i_q - i_b (arXiv
// 2504.06261).
#pragma once

#include <cstdint>
#include <vector>

#include "block-table.h"
#include "hogwild.h"

namespace hw {

// A run of cells that somebody sees in this pass, the cells written by this pass included.
struct PassBlock {
    int64_t begin;
    int64_t n_cells;
};

// A token looking at a block: it sees its keys [0, n_visible).
struct PassPair {
    int32_t token;
    int32_t block;     // index into Pass::blocks
    int32_t distance;  // i_q - i_b
    int32_t n_visible;
};

struct Pass {
    std::vector<int32_t> tokens;          // [T]
    std::vector<int32_t> positions;       // [T] inside the block that the token is written to
    std::vector<int32_t> view_positions;  // [T] inside the view
    std::vector<int64_t> cells;           // [T] where its key and value go
    std::vector<int32_t> outputs;         // [views] index of each view's last token
    std::vector<PassBlock> blocks;
    std::vector<PassPair> pairs;  // of one token after the other, in the order of its view
    int32_t max_pairs = 0;        // of one token

    // By how many positions a query is rotated for a block: its distance to the begin of the block; or, if it has its
    // position in the view already, minus the begin of the block.
    int32_t turn(const PassPair& pair, bool has_position) const {
        return has_position ? pair.distance - view_positions[static_cast<size_t>(pair.token)] : pair.distance;
    }
    int32_t n_tokens() const { return static_cast<int32_t>(tokens.size()); }
    int32_t n_outputs() const { return static_cast<int32_t>(outputs.size()); }
};

// The pass of checked views; the own blocks have room for their tokens (BlockTable::reserve).
Pass make_pass(const BlockTable& table, const hw_view* views, int32_t n_views);

}  // namespace hw
