// The blocks of a cache: their tokens, and their cells. What is done to them here fails as a whole or not at all.
//
// Why that holds, whatever a device does in the middle. Two kinds of steps write to cells:
//
// 1. New cells. A copy, a block that was read back, a step that is appended: they are written to free cells, and only
//    then does the table say that a block has them. If writing fails, no block refers to them.
// 2. Moves that make room. They keep what blocks hold, and end with the table that was planned; but a run of cells
// cannot
//    be in two places, so a half-moved block cannot be told by the table. Therefore the plan is taken over first, with
//    the list of the copies that it still takes (`Unfinished`). Each of them can be made again, and none of them
//    overwrites what is still needed (cache/cell-moves.h). If one fails, the list keeps it, and whoever next needs
//    cells finishes the list first. Until then lengths, tokens, split, truncate and free go on as ever: they are
//    numbers.
//
// A step that is appended in a full cache has no free cells beside it. It is read into host memory and so becomes part
// of the moves: behind them, it is written to where it is to stand, as it was. There its keys are turned; if that
// fails, it is written once more. Either way it is the block that it was, elsewhere.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "cache/block-maps.h"
#include "cache/block-table.h"
#include "engine/cells.h"

namespace hw {

class Blocks {
  public:
    // n_ctx: cells that callers may use; the table has some more. cells must outlive this object.
    // maps: empty; what blocks keep of recurrent layers, beside their cells.
    Blocks(int64_t n_ctx, int64_t n_cells, const ScratchCells& scratch, Cells& cells, BlockMaps maps);

    // All of these throw HW_ERROR_ARGUMENT for a block that does not exist.
    void check_block(int32_t block) const;
    int64_t len(int32_t block) const;
    const std::vector<int32_t>& tokens(int32_t block) const;
    int32_t add();
    void free(int32_t block);
    // Where these two can cut a block: the last place at or before n; anywhere without recurrent layers.
    int32_t last_cut(int32_t block, int32_t n) const;
    void mark(int32_t block);  // its end is such a place from now on
    void truncate(int32_t block, int32_t n);
    int32_t split(int32_t block, int32_t n);  // the tail
    // These also throw HW_ERROR_MEMORY, HW_ERROR_COMPUTE, and but for append HW_ERROR_CACHE_FULL.
    void append(int32_t dst, int32_t src);
    int32_t copy(int32_t block);
    // A new block of what read() wrote: its cells, then its maps.
    int32_t restore(std::vector<int32_t> tokens, int64_t origin, const std::byte* data, size_t n_bytes);
    void read(int32_t block, std::byte* data);
    size_t n_bytes(int32_t block) const { return cells_.n_bytes(len(block)) + maps_.n_bytes(block); }

    // For a pass: makes room for blocks that grow; afterwards, when their cells are written, their new tokens, and
    // their maps (maps().plan), which cannot fail.
    void reserve(const std::vector<Growth>& growth);
    void grow(int32_t block, const int32_t* tokens, int32_t n);
    BlockMaps& maps() { return maps_; }

    const BlockTable& table() const { return table_; }
    void set_origin(int32_t block, int64_t origin) { table_.set_origin(block, origin); }  // of an empty block
    int64_t n_free() const { return n_ctx_ - (table_.n_cells() - table_.n_free()); }
    int64_t n_moved() const { return n_moved_; }
    void check() const;

  private:
    using Bytes = std::vector<std::byte>;

    // What it takes until all cells lie where the table says.
    struct Unfinished {
        std::deque<CellMove> copies;
        std::shared_ptr<const Bytes> cells;  // to be written behind the copies; NULL: none
        int64_t begin;
        int64_t n;
    };

    template <typename Fill>
    int32_t add_filled(std::vector<int32_t> tokens, int64_t origin, Segments segments, Fill fill);
    void check_free(int64_t need) const;
    void prepare_tokens(int32_t block, int64_t n);
    void make_room(const std::vector<Growth>& growth);
    void take_over(BlockTable planned, const std::vector<BlockMove>& moves, Unfinished unfinished);
    void finish_moves();
    void move_by_host(int32_t dst, int32_t src, int64_t key_turn);

    int64_t n_ctx_;
    ScratchCells scratch_;
    Cells& cells_;
    BlockTable table_;
    BlockMaps maps_;
    std::map<int32_t, std::vector<int32_t>> tokens_;
    Unfinished unfinished_ = {};
    int64_t n_moved_ = 0;
};

}  // namespace hw
