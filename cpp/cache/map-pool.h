// Memory for what runs of tokens do to the states of recurrent layers (kernel/recurrence.h).
//
// A map never changes once its pass is done: a run that grows gets a new one, and the old one serves until then. So a
// pass that fails has changed nothing, and copies of a block, and its halves, share maps. Sizes are some MiB, and each
// pass takes some and gives as many back: a few are kept for the next.
#pragma once

#include <cstddef>
#include <memory>

namespace hw {

// Numbers of all recurrences; whoever holds it last gives it back.
using Map = std::shared_ptr<float>;

class MapPool {
  public:
    explicit MapPool(size_t n_floats);
    // What it holds is anything. Throws HW_ERROR_MEMORY.
    Map take();
    size_t n_floats() const { return n_floats_; }
    size_t n_bytes() const;  // of all that are in use

  private:
    struct Shelf;
    size_t n_floats_;
    std::shared_ptr<Shelf> shelf_;
};

}  // namespace hw
