// What is done to the cells of all layers that have the same cells, behind an interface: blocks.h says when, kv-move.h
// does it to a KvStore, and a test fails it at any step.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cache/cell-moves.h"

namespace hw {

class Cells {
  public:
    virtual ~Cells() = default;
    // These throw HW_ERROR_MEMORY, HW_ERROR_COMPUTE; the cells they were to write hold anything then.
    // Copies cells to others that do not overlap with them.
    virtual void copy(const CellMove& move) = 0;
    // The same, and rotates the copied keys on by `key_turn` positions. from == to: keys are rotated where they are.
    virtual void turn(const CellMove& move, int64_t key_turn) = 0;

    // The first time that cells are to be had: they hold zeros then. false: there is no memory for them.
    virtual bool open(int64_t begin, int64_t n) = 0;

    // As bytes, see docs/block-format.md. ggml knows no error of these: a device that cannot do it ends the process.
    virtual size_t n_bytes(int64_t n) const = 0;
    virtual void read(int64_t begin, int64_t n, std::byte* data) const = 0;
    // The last n of n_data cells.
    virtual void write(int64_t begin, int64_t n, const std::byte* data, int64_t n_data) = 0;
    // Whether a cache could have stored these bytes of n cells: an infinity or a NaN of one block could reach others.
    virtual bool can_be_stored(int64_t n, const std::byte* data) const = 0;
};

}  // namespace hw
