// The cells that blocks have in some layers of a model: in those that attend to all tokens, or in those with a sliding
// window. Each space has a table of its own, and tensors of its own length.
//
// With a window, no query behind a block sees more than its last tokens, whatever the view: blocks behind it push the
// others further away. So a block needs its last `window` tokens and no more. What it has beyond stays while there is
// room, since it can be cut there, and is dropped where there is none, of the block that has most of it first:
//
//   tokens      0            first                len         here it can be cut: at 0, and first + window to len
//   block       | dropped    | beyond | window    |
//   cells                    | these are its run  |
//
// Cells are opened, which makes them hold zeros, when they are handed out for the first time: memory that is never used
// is never touched. The table has those that are open. Of n_usable, few are opened for what could be dropped.
//
// See blocks.h for what holds where a device fails.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <vector>

#include "cache/block-table.h"
#include "engine/cells.h"

namespace hw {

struct SpaceSize {
    int64_t n_usable;  // cells that blocks may have
    int64_t n_cells;   // of the table, some more; the scratch cells are behind them
    ScratchCells scratch;
    int64_t n_all;       // of the tensors
    int64_t n_first;     // of n_usable, opened at once
    int64_t n_kept;      // and so many are opened, before what no window sees is dropped
    int64_t window = 0;  // of the layers; 0: none
    bool drops = false;  // what no window sees; else n_usable are enough for all tokens
};

// Attention may read so many cells beyond those of a block, and multiplies them by zero: they are open too.
constexpr int64_t read_beyond = 256;

class CellSpace {
  public:
    // cells must outlive this object. Throws HW_ERROR_MEMORY.
    CellSpace(const SpaceSize& size, Cells& cells);

    const BlockTable& table() const { return table_; }
    int64_t n_usable() const { return size_.n_usable; }
    const ScratchCells& scratch() const { return size_.scratch; }
    int64_t n_free() const;  // those of n_usable that no block needs
    int64_t n_moved() const { return n_moved_; }
    // Throw HW_ERROR_CACHE_FULL: for blocks that grow by so much; for a new one of so many tokens.
    void check_free(int64_t need) const;
    void check_new(int64_t n_tokens) const { check_free(n_needed({0, n_tokens, 0, 0})); }

    // Numbers: these cannot fail, but for add, which changes nothing then.
    void add(int32_t block) { table_.add(block); }
    void remove(int32_t block) { table_.remove(block); }
    void set_origin(int32_t block, int64_t origin) { table_.set_origin(block, origin); }
    bool can_cut(int32_t block, int64_t n) const;
    void truncate(int32_t block, int64_t n) { table_.set_tokens(block, n); }
    void split(int32_t block, int64_t n, int32_t tail) { table_.split(block, n, tail); }
    void grow(int32_t block, int64_t n) { table_.set_tokens(block, table_.run(block).n_tokens() + n); }

    // Makes room for blocks that grow, which check_free has found. Drops what is not needed, and moves. Throws
    // HW_ERROR_CACHE_FULL, with nothing changed, where there is no memory for so many cells.
    void make_room(const std::vector<Growth>& growth);

    // An append in two steps, for there may be several spaces: the cells, which may fail, and then the numbers. Drops
    // nothing but what a window cannot see behind src.
    struct Joined {
        Run run;                                      // what dst will have
        std::shared_ptr<std::vector<std::byte>> old;  // cells of src that were written over where they lie; NULL: none
    };
    Joined join(int32_t dst, int32_t src);
    void undo(int32_t src, const Joined& joined);
    void commit(int32_t dst, int32_t src, const Joined& joined);

    // Cells of a new block: those of another, or as bytes, but for the first ones, where all would be too many.
    void copy(int32_t block, int32_t from);
    // Returns how many bytes these were.
    size_t write(int32_t block, int64_t n_tokens, int64_t origin, const std::byte* data);

    size_t n_bytes(int32_t block) const;
    void read(int32_t block, std::byte* data);
    // How many of these bytes are of this space. Throws HW_ERROR_ARGUMENT unless they are those of a block of n tokens.
    size_t checked_bytes(int64_t n_tokens, const std::byte* data, size_t n_bytes) const;

    void check() const;  // throws HW_ERROR_COMPUTE

  private:
    using Bytes = std::vector<std::byte>;

    // What it takes until all cells lie where the table says.
    struct Unfinished {
        std::deque<CellMove> copies;
        std::shared_ptr<const Bytes> cells;  // to be written behind the copies; NULL: none
        int64_t begin;
        int64_t n;
    };

    int64_t n_needed(const Run& run) const { return size_.window == 0 ? run.len : std::min(run.len, size_.window); }
    int64_t n_held() const { return table_.n_cells() - table_.n_free(); }
    int64_t n_of_new(int64_t n) const;
    int64_t n_needed() const;
    bool open(int64_t n_usable);
    void open_for(int64_t need);
    void drop_for(int64_t need);
    void arrange(const std::vector<Growth>& growth);
    void take_over(BlockTable planned, const std::vector<BlockMove>& moves, Unfinished unfinished);
    void finish_moves();
    Joined turn_in_place(int32_t src, int64_t key_turn);
    Joined join_by_host(int32_t dst, int32_t src, int64_t key_turn);

    SpaceSize size_;
    Cells& cells_;
    int64_t n_opened_ = 0;  // of the tensors' cells, the first ones
    int64_t n_open_ = 0;    // of n_usable
    BlockTable table_;
    Unfinished unfinished_ = {};
    int64_t n_moved_ = 0;
};

}  // namespace hw
