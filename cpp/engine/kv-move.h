// Moves cells inside a KvStore: as they are (relocation), or with their keys rotated on (a step that joins the
// history). Made of stock ggml operations, so that cells move on the device that holds them.
#pragma once

#include "cache/block-table.h"
#include "cache/kv-store.h"
#include "model/backends.h"

namespace hw {

class KvMover {
  public:
    KvMover(const SourceGraph& source, KvStore& store, Backends& backends);
    // Copies cells; the ranges may overlap. Throws HW_ERROR_MEMORY, HW_ERROR_COMPUTE.
    void relocate(const CellMove& move);
    // Copies cells to others that do not overlap with them, and rotates their keys on by `distance` positions.
    void rotate(const CellMove& move, int64_t distance);

  private:
    void run(const CellMove& move, int64_t distance);

    int n_pos_per_token_;
    std::map<int, ggml_tensor> key_turns_;  // by layer, see graph/key-turn.h
    KvStore& store_;
    ggml_backend_sched_ptr scheduler_;
};

}  // namespace hw
