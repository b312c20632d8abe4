// One shared KV cache: blocks and views on top of cells and graphs. What stands behind hw_cache.
#pragma once

#include <list>
#include <memory>
#include <mutex>

#include "attention/choose.h"
#include "base/thread-pool.h"
#include "engine/blocks.h"
#include "engine/cache-size.h"
#include "engine/fingerprint.h"
#include "engine/kv-move.h"
#include "engine/node-times.h"
#include "engine/pass-graph.h"
#include "engine/thread-count.h"
#include "engine/weight-shares.h"

namespace hw {

// Blocks of a cache that nobody else uses while this object lives.
class LockedBlocks {
  public:
    LockedBlocks(std::mutex& mutex, Blocks& blocks) : lock_(mutex), blocks_(blocks) {}
    Blocks* operator->() const { return &blocks_; }
    Blocks& operator*() const { return blocks_; }

  private:
    std::unique_lock<std::mutex> lock_;
    Blocks& blocks_;
};

class Cache {
  public:
    // Throws HW_ERROR_ARGUMENT (fused attention, and a layer elsewhere), HW_ERROR_UNSUPPORTED, HW_ERROR_MEMORY.
    Cache(ModelPtr model, const CacheParams& params);

    // Every public call takes the lock: calls from several threads wait for each other.
    LockedBlocks blocks() { return {mutex_, *blocks_}; }
    size_t n_bytes();
    hw_counts counts();
    void time_nodes(bool on);
    std::vector<hw_node_time> node_times();
    // Bytes of keys and values; and whether our kernel attends to a layer.
    BytesByPlace placement();
    bool is_fused(int layer) const { return choice_->is_fused(layer); }
    // Tokens that layers with a sliding window hold; n_ctx where there is none.
    int64_t n_windowed() const { return blocks_->spaces().back().n_usable(); }
    // A block as bytes, see docs/block-format.md. Throws what engine/block-state.h and engine/fingerprint.h throw.
    size_t state_size(int32_t block);
    void read(int32_t block, void* data, size_t size);
    int32_t write(const void* data, size_t size);
    int32_t pass_size(int32_t n) const;
    const std::vector<hw_weight_share>& weights() const { return weights_; }
    hw_cell_size cell_size() const;
    int32_t n_recurrences() const { return static_cast<int32_t>(source_.spec().recurrences.size()); }
    void decode(const hw_view* views, int32_t n_views);
    // A view whose first tokens are computed elsewhere.
    void decode_chunk(const hw_view& view, const hw_chunk& chunk);
    int32_t n_layers() const { return static_cast<int32_t>(store_->layers().size()); }
    // layer: 0 to n_layers() - 1
    size_t layer_bytes(int32_t layer, int32_t n) const;
    bool is_windowed(int32_t layer) const;

  private:
    const Fingerprint& fingerprint();
    void check_views(const hw_view* views, int32_t n_views) const;
    void check_view(const hw_view& view, int32_t index) const;
    void check_batch(int64_t n_tokens) const;
    void check_positions(const Pass& pass) const;
    std::vector<Growth> growth_of(const hw_view* views, int32_t n_views) const;
    void give_origins(const hw_view* views, int32_t n_views);
    void compute(const hw_view* views, int32_t n_views, LayerHook* hook);
    bool may_take_fewer_threads() const;
    void note(const std::vector<Pass>& passes, const PassGraph& graph);
    std::vector<Pass> plan_passes(const hw_view* views, int32_t n_views);
    MapPass plan_maps(const hw_view* views, const Pass& pass);
    PassGraph& graph_for(const std::vector<Pass>& passes, const RecurrentPlan& recurrent);
    PassGraph& build_graph(const std::vector<Pass>& passes, const RecurrentPlan& recurrent, const PassSize& size);

    std::mutex mutex_;
    ModelPtr model_;
    int32_t n_batch_;
    hw_counts counts_ = {};                // but for what others count
    std::optional<NodeTimes> node_times_;  // where passes are timed
    GraphSource source_;
    std::vector<hw_weight_share> weights_;
    std::optional<AttentionChoice> choice_;
    Backends backends_;
    ThreadCount n_threads_;  // of a pass
    ThreadPool pool_;        // for the samplers of a pass
    ggml_type type_k_;
    ggml_type type_v_;
    std::string rope_;  // see engine/fingerprint.h
    Fingerprint fingerprint_;
    std::unique_ptr<KvStore> store_;
    std::list<KeptMirrors> mirrors_;  // of each space
    std::list<KvMover> movers_;
    std::unique_ptr<Blocks> blocks_;
    std::list<PassGraph> graphs_;  // the last used one first
};

}  // namespace hw
