// One shared KV cache: blocks and views on top of cells and graphs. What stands behind hw_cache.
#pragma once

#include <list>
#include <memory>
#include <mutex>

#include "attention/flash-plan.h"
#include "base/thread-pool.h"
#include "cache/block-table.h"
#include "engine/kv-move.h"
#include "engine/pass-cost.h"
#include "engine/pass-graph.h"

namespace hw {

class Cache {
  public:
    // Throws HW_ERROR_ARGUMENT, HW_ERROR_UNSUPPORTED, HW_ERROR_MEMORY.
    Cache(ModelPtr model, const hw_cache_params& params);

    // Every public call takes the lock: calls from several threads wait for each other.
    int32_t n_free();
    size_t n_bytes();
    int64_t n_moved();
    int64_t n_mirrored();
    // Bytes of keys and values; and whether our kernel attends to a layer.
    BytesByPlace placement();
    bool is_fused(int layer) const;
    int32_t pass_size(int32_t n) const;
    const std::vector<hw_weight_share>& weights() const { return pass_cost_->weights(); }
    hw_cell_size cell_size() const;
    int32_t new_block();
    int32_t len(int32_t block);
    void free_block(int32_t block);
    void truncate(int32_t block, int32_t n);
    void append(int32_t dst, int32_t src);
    void decode(const hw_view* views, int32_t n_views);
    void check();

  private:
    void check_block(int32_t block) const;
    void check_views(const hw_view* views, int32_t n_views) const;
    void check_view(const hw_view& view, int32_t index) const;
    void reserve(const std::vector<Growth>& growth);
    void make_room(const std::vector<Growth>& growth);
    Pass plan_pass(const hw_view* views, int32_t n_views);
    int64_t free_cells() const { return n_ctx_ - (table_.n_cells() - table_.n_free()); }
    PassGraph& graph_for(const Pass& pass);
    PassGraph& build_graph(const Pass& pass, const PassSize& size);

    // Where the tokens that fill up a batch are stored: the cell behind the last one, in no block.
    int64_t spare_cell() const { return table_.n_cells(); }

    std::mutex mutex_;
    ModelPtr model_;
    hw_attention attention_;
    int32_t n_batch_;
    int64_t n_ctx_;  // the cells that callers may use; the table has some more
    int64_t n_moved_ = 0;
    int64_t n_mirrored_ = 0;
    std::optional<FlashRules> flash_rules_;  // nullopt: layers without our kernel do without flash attention too
    GraphSource source_;
    std::optional<PassCost> pass_cost_;
    Backends backends_;
    ThreadPool pool_;  // for the samplers of a pass
    BlockTable table_{0};
    std::unique_ptr<KvStore> store_;
    std::unique_ptr<KvMover> mover_;
    std::list<PassGraph> graphs_;  // the last used one first
};

}  // namespace hw
