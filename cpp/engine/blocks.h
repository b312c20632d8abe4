// The blocks of a cache: their tokens, and their cells, of one space or of two: layers with a sliding window have their
// own (cell-space.h). What is done to them here fails as a whole or not at all.
//
// Why that holds, whatever a device does in the middle. Two kinds of steps write to cells:
//
// 1. New cells. A copy, a block that was read back, a step that is appended: they are written to free cells, and only
//    then does the table say that a block has them. If writing fails, no block refers to them.
// 2. Moves that make room. They keep what blocks hold, and end with the table that was planned; but a run of cells
//    cannot be in two places, so a half-moved block cannot be told by the table. Therefore the plan is taken over
//    first, with the list of the copies that it still takes (`Unfinished`). Each of them can be made again, and none of
//    them overwrites what is still needed (cache/cell-moves.h). If one fails, the list keeps it, and whoever next needs
//    cells finishes the list first. Until then lengths, tokens, split, truncate and free go on as ever: they are
//    numbers.
//
// A step that is appended in a full cache has no free cells beside it. It is read into host memory and so becomes part
// of the moves: behind them, it is written to where it is to stand, as it was. There its keys are turned; if that
// fails, it is written once more. Either way it is the block that it was, elsewhere.
//
// What no window sees may be dropped by a call that fails later: then a block can be cut at fewer places than before.
#pragma once

#include <map>
#include <vector>

#include "cache/block-maps.h"
#include "engine/cell-space.h"

namespace hw {

class Blocks {
  public:
    // spaces: empty; the first one has all tokens of each block, and its cells are what callers count. A second one is
    // of layers with a sliding window. maps: empty; what blocks keep of recurrent layers, beside their cells.
    Blocks(std::vector<CellSpace> spaces, BlockMaps maps) : spaces_(std::move(spaces)), maps_(std::move(maps)) {}

    // All of these throw HW_ERROR_ARGUMENT for a block that does not exist.
    void check_block(int32_t block) const;
    int64_t len(int32_t block) const;
    const std::vector<int32_t>& tokens(int32_t block) const;
    int32_t add(bool is_anchored);  // BlockMaps
    void free(int32_t block);
    // Where these two can cut a block: the last place at or before n. Anywhere, but for what recurrent layers have
    // joined, and windows have dropped.
    int32_t last_cut(int32_t block, int32_t n) const;
    void mark(int32_t block);  // its end is such a place from now on, for recurrent layers
    void truncate(int32_t block, int32_t n);
    int32_t split(int32_t block, int32_t n);  // the tail
    // These also throw HW_ERROR_MEMORY, HW_ERROR_COMPUTE, and but for append HW_ERROR_CACHE_FULL.
    void append(int32_t dst, int32_t src);
    int32_t copy(int32_t block);
    // A new block of what read() wrote: its cells, space after space, then its maps.
    int32_t restore(std::vector<int32_t> tokens, int64_t origin, const std::byte* data, size_t n_bytes);
    void read(int32_t block, std::byte* data);
    size_t n_bytes(int32_t block) const;

    // For a pass: makes room for blocks that grow; afterwards, when their cells are written, their new tokens, and
    // their maps (maps().plan), which cannot fail.
    void reserve(const std::vector<Growth>& growth);
    void grow(int32_t block, const int32_t* tokens, int32_t n);
    BlockMaps& maps() { return maps_; }

    const std::vector<CellSpace>& spaces() const { return spaces_; }
    const BlockTable& table() const { return spaces_.front().table(); }
    void set_origin(int32_t block, int64_t origin);  // of an empty block
    int64_t n_free() const { return spaces_.front().n_free(); }
    int64_t n_moved() const;
    void check() const;

  private:
    template <typename Fill>
    int32_t add_filled(std::vector<int32_t> tokens, Segments segments, bool is_anchored, Fill fill);
    void prepare_tokens(int32_t block, int64_t n);
    void check_cut(int32_t block, int32_t n) const;
    std::vector<CellSpace::Joined> join(int32_t dst, int32_t src);

    std::vector<CellSpace> spaces_;
    BlockMaps maps_;
    std::map<int32_t, std::vector<int32_t>> tokens_;
    int32_t next_id_ = 1;
};

}  // namespace hw
