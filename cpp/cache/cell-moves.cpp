#include "cache/cell-moves.h"

#include <algorithm>
#include <cstdlib>

namespace hw {

void fill_up(std::vector<int64_t>* cells, int64_t n, const ScratchCells& scratch) {
    cells->reserve(static_cast<size_t>(n));
    for (int64_t i = 0; static_cast<int64_t>(cells->size()) < n; i++) {
        cells->push_back(scratch.begin + i % scratch.n);
    }
}

std::vector<CellMove> as_copies(const CellMove& move, const ScratchCells& scratch) {
    const int64_t distance = std::abs(move.to - move.from);
    const bool by_scratch = distance < std::min(move.n, scratch.n);
    const int64_t piece = by_scratch ? scratch.n : distance;
    const bool to_left = move.to < move.from;
    std::vector<CellMove> copies;
    for (int64_t done = 0; done < move.n; done += piece) {
        const int64_t n = std::min(piece, move.n - done);
        const int64_t at = to_left ? done : move.n - done - n;  // from the end that has free cells before it
        if (by_scratch) {
            copies.push_back({move.from + at, scratch.begin, n});
            copies.push_back({scratch.begin, move.to + at, n});
        } else {
            copies.push_back({move.from + at, move.to + at, n});
        }
    }
    return copies;
}

}  // namespace hw
