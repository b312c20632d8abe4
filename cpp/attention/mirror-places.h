// Which free cells mirrors get: near what is read with them, and where no block and no other mirror soon grows into
// them.
#pragma once

#include <optional>
#include <vector>

#include "cache/block-table.h"

namespace hw {

struct CellRange {
    int64_t begin = 0;
    int64_t end = 0;

    int64_t size() const { return end - begin; }
    CellRange with(int64_t first, int64_t last) const;
};

// What a mirror of n cells is given, so that it stays where it is while its block grows.
int64_t room_for(int64_t n);

class MirrorPlaces {
  public:
    explicit MirrorPlaces(const BlockTable& table);
    // Takes these cells; false: not all of them are left.
    bool take(int64_t begin, int64_t n);
    // Takes n cells where they lengthen the range least, and room beside them if there is any. nullopt: there is no
    // place. Returns the first cell.
    std::optional<int64_t> place(int64_t n, const CellRange& range);

  private:
    struct Gap {
        int64_t begin;
        int64_t n;
        bool is_behind_block;
    };
    std::optional<int64_t> find(int64_t n, int64_t distance, const CellRange& range) const;

    std::vector<Gap> gaps_;
};

}  // namespace hw
