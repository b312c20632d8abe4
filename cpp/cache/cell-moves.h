// Moves of cells as copies that can each be made again: what a cache finishes later, if a device fails in the middle.
#pragma once

#include <cstdint>
#include <vector>

namespace hw {

// Cells [from, from + n) go to [to, to + n); the ranges may overlap. Moves of one list are made in its order.
struct CellMove {
    int64_t from;
    int64_t to;
    int64_t n;
};

// Cells that no block ever has: a stop on the way of moves, and in a pass where rows go that fill up.
struct ScratchCells {
    int64_t begin;
    int64_t n;
};

// Cells for n rows: beyond those that have one, a scratch cell each, for an operation's threads write at once; again
// from the first where there are fewer.
void fill_up(std::vector<int64_t>* cells, int64_t n, const ScratchCells& scratch);

// The same move as a list of copies whose two ranges never overlap, so that any of them can be made twice. A move over
// some cells only goes by way of the scratch cells:
//
//   cell  0   2               10                     scratch
//         |   |a b c d e f g h|          a b c d  ->  |a b c d|  ->  cells 0 to 3,  then e f g h
//         |a b c d e f g h|
//
// A copy writes to cells that are free, or whose keys were copied on before. So while the list is being worked off, all
// that the cells held can still be found: nothing is lost where it stops.
std::vector<CellMove> as_copies(const CellMove& move, const ScratchCells& scratch);

}  // namespace hw
