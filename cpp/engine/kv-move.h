// Moves, reads and writes the cells of some layers of a KvStore: as they are (relocation), or with their keys rotated
// on (a step that joins the history). Moves are made of stock ggml operations, so that cells move on the device that
// holds them.
#pragma once

#include "cache/kept-mirrors.h"
#include "cache/kv-store.h"
#include "engine/cells.h"
#include "model/backends.h"

namespace hw {

class KvMover : public Cells {
  public:
    // layers: those that are moved. mirrors: told of what is written. All of them must outlive this object.
    KvMover(const ModelSpec& spec, std::map<int, KvTensors> layers, Backends& backends, KeptMirrors& mirrors);
    void copy(const CellMove& move) override { turn(move, 0); }
    void turn(const CellMove& move, int64_t key_turn) override;
    bool open(int64_t begin, int64_t n) override;
    size_t n_bytes(int64_t n) const override;
    void read(int64_t begin, int64_t n, std::byte* data) const override;
    void write(int64_t begin, int64_t n, const std::byte* data, int64_t n_data) override;
    bool can_be_stored(int64_t n, const std::byte* data) const override;

  private:
    void run(const CellMove& move, int64_t key_turn);

    const ModelSpec& spec_;
    std::map<int, KvTensors> layers_;
    KeptMirrors& mirrors_;
    ggml_backend_sched_ptr scheduler_;
};

}  // namespace hw
