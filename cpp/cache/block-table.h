// Which cells belong to which block. Only numbers: the keys and values themselves are moved by engine/kv-move.h.
//
// A block is one run of cells [begin, begin + len). Runs never overlap, and what lies between them is free:
//
//   cell  0        40      48        60   64                  100 = n_cells
//         |prompt   |  free |  alice  |free|  bob  | ... free   |
//
// A table of layers with a sliding window holds of a block what was not dropped at its front: tokens [first, first +
// len). What it says of a run is said of these; in other tables first is 0.
//
// Invariants (check()): runs lie in [0, n_cells) and do not overlap; n_free == n_cells - sum of len.
// A block that outgrows its gap moves what stands in its way to another gap, or itself if that is less; where no gap is
// large enough, all blocks are packed anew, with the free cells shared out between them.
//
// Flash attention reads the cells between those that a view sees too. So blocks that are read together keep close to
// each other (`slack`, Growth::near), and a long one that is read with no other begins far from those that are there:
// what will be read with it finds room beside it. Short blocks that were written before it was known what they are read
// with are moved there.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "cache/cell-moves.h"

namespace hw {

struct Run {
    int64_t begin;
    int64_t len;        // cells
    int64_t reserved;   // cells promised by the last reserve(), >= len
    int64_t origin;     // the key in cell begin + l is stored rotated to position origin + l
    int64_t first = 0;  // tokens of the block that were dropped before these

    int64_t end() const { return begin + len; }
    int64_t n_tokens() const { return first + len; }
};

struct FreeRun {
    int64_t begin;
    int64_t n;
};

// All cells of a block.
struct BlockMove {
    int32_t block;
    CellMove cells;
};

struct Growth {
    int32_t block;
    int64_t n;         // cells; 0: it only is to be near
    int32_t near = 0;  // a block that is read with it; 0: none
};

class BlockTable {
  public:
    explicit BlockTable(int64_t n_cells) : n_cells_(n_cells) {}

    void add(int32_t block) { runs_[block] = {0, 0, 0, 0}; }
    void remove(int32_t block) { runs_.erase(block); }
    bool contains(int32_t block) const { return runs_.count(block) != 0; }
    const Run& run(int32_t block) const { return runs_.at(block); }
    const std::map<int32_t, Run>& runs() const { return runs_; }
    int64_t n_free() const;
    int64_t n_cells() const { return n_cells_; }
    void set_n_cells(int64_t n) { n_cells_ = n; }  // not fewer

    // Makes room for the growth of these blocks (each named once) and returns the moves that this takes. Lengths stay
    // as they are. The sum of the growth must not exceed n_free().
    std::vector<BlockMove> reserve(const std::vector<Growth>& growth);
    // Sets the number of tokens of a block: never beyond what reserve made room for, never to one that was dropped but
    // for 0.
    void set_tokens(int32_t block, int64_t n);
    // Gives up the first n of its cells.
    void drop(int32_t block, int64_t n);
    // Of an empty block.
    void set_origin(int32_t block, int64_t origin) { runs_.at(block).origin = origin; }
    // The tokens from n on become a block of their own (which was added), where they are. n: as in set_tokens.
    void split(int32_t block, int64_t n, int32_t tail);
    // The block has this run from now on: cells that were reserved, or those of another block, which goes without.
    void set_run(int32_t block, const Run& run) { runs_.at(block) = run; }
    // Puts a block that is empty into the cells behind another that were reserved for that one's growth.
    void put_behind(int32_t block, const Run& run, int32_t other);
    // What is neither used nor promised, in the order of the cells.
    std::vector<FreeRun> free_runs() const;
    // The text of a broken invariant, nullptr if all hold.
    const char* check() const;

  private:
    std::vector<int32_t> by_place() const;
    bool extend(Run* run, int64_t need) const;
    bool clear_way(int32_t block, int64_t need, std::vector<BlockMove>* moves);
    bool move_to_gap(int32_t block, int64_t need, int32_t near, std::vector<BlockMove>* moves);
    FreeRun choose_gap(int64_t need, const Run* near) const;
    const Run* known(int32_t block) const;
    void bring_near(const Growth& item, std::vector<BlockMove>* moves);
    void pack(const std::vector<Growth>& growth, std::vector<BlockMove>* moves);

    int64_t n_cells_;
    std::map<int32_t, Run> runs_;
};

}  // namespace hw
