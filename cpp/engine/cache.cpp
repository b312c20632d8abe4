#include "engine/cache.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <set>

#include "base/error.h"
#include "cache/layer-cells.h"
#include "engine/block-state.h"
#include "engine/chunk.h"
#include "engine/outputs.h"

namespace hw {

namespace {

// Live graphs: their number bounds the memory of compute buffers, which for large batches counts.
constexpr size_t max_graphs = 16;
constexpr size_t max_large_graphs = 2;
constexpr int32_t large = 64;

}  // namespace

Cache::Cache(ModelPtr model, const CacheParams& params)
    : model_(std::move(model)),
      n_batch_(params.n_batch),
      source_(model_, params.n_ctx),
      backends_(*model_),
      n_threads_(model_->n_threads()),
      pool_(model_->n_threads()),
      type_k_(params.type_k),
      type_v_(params.type_v) {
    const ModelSpec& probe = source_.spec();
    weights_ = weight_shares(source_.of(1, 1).graph);
    choice_.emplace(probe, params.attention, type_k_);
    const std::vector<SpaceSize> sizes = sizes_of_spaces(probe, params, *choice_);
    rope_ = rope_digest(probe.layers);
    store_ = std::make_unique<KvStore>(probe.layers, n_all_of(sizes), type_k_, type_v_);
    std::vector<CellSpace> spaces;
    for (const SpaceSize& size : sizes) {
        mirrors_.emplace_back();
        movers_.emplace_back(probe, store_->layers_of(spaces.size()), backends_, mirrors_.back());
        spaces.emplace_back(size, movers_.back());
    }
    blocks_ = std::make_unique<Blocks>(std::move(spaces), BlockMaps(probe.recurrences, &pool_));
    choice_->ask_devices(probe, *store_);
}

size_t Cache::n_bytes() {
    std::lock_guard<std::mutex> lock(mutex_);
    return store_->n_bytes() + blocks_->maps().n_bytes_used();
}

hw_counts Cache::counts() {
    std::lock_guard<std::mutex> lock(mutex_);
    hw_counts counts = counts_;
    counts.n_moved = blocks_->n_moved();
    counts.n_joined = blocks_->maps().n_joined();
    counts.n_source_graphs = source_.n_asked();
    return counts;
}

void Cache::time_nodes(bool on) {
    std::lock_guard<std::mutex> lock(mutex_);
    node_times_.reset();
    if (on) {
        node_times_.emplace();
    }
}

std::vector<hw_node_time> Cache::node_times() {
    std::lock_guard<std::mutex> lock(mutex_);
    return node_times_ ? node_times_->rows() : std::vector<hw_node_time>();
}

int32_t Cache::pass_size(int32_t n) const {
    if (n < 1 || n > n_batch_) {
        fail(HW_ERROR_ARGUMENT, "a pass of %d tokens: it must be 1 to n_batch (%d)", n, n_batch_);
    }
    return size_of_pass(n, n, n_batch_).n_tokens;
}

hw_cell_size Cache::cell_size() const {
    hw_cell_size size = {0.0, 0.0};
    for (const auto& entry : store_->layers()) {
        const KvTensors& tensors = entry.second;
        for (const ggml_tensor* stored : {tensors.k, tensors.has_values() ? tensors.v : nullptr}) {
            if (stored != nullptr) {  // [d, n_cells, Hkv]
                const double n_cells = static_cast<double>(stored->ne[1]);
                size.n_bytes += static_cast<double>(ggml_nbytes(stored)) / n_cells;
                size.n_values += static_cast<double>(ggml_nelements(stored)) / n_cells;
            }
        }
    }
    return size;
}

BytesByPlace Cache::placement() {
    std::lock_guard<std::mutex> lock(mutex_);
    BytesByPlace bytes;
    for (const auto& [index, tensors] : store_->layers()) {
        bytes[{device_of(tensors.k), index}] +=
            ggml_nbytes(tensors.k) + (tensors.has_values() ? ggml_nbytes(tensors.v) : 0);
    }
    return bytes;
}

// Made when it is first asked for: it reads the model's files.
const Fingerprint& Cache::fingerprint() {
    if (fingerprint_.empty()) {
        fingerprint_ = hw::fingerprint(*model_, type_k_, type_v_, rope_);
    }
    return fingerprint_;
}

size_t Cache::state_size(int32_t block) {
    std::lock_guard<std::mutex> lock(mutex_);
    return hw::state_size(*blocks_, block, fingerprint());
}

void Cache::read(int32_t block, void* data, size_t size) {
    std::lock_guard<std::mutex> lock(mutex_);
    const size_t need = hw::state_size(*blocks_, block, fingerprint());
    if (size != need) {
        fail(HW_ERROR_ARGUMENT, "block %d takes %zu bytes, and there is room for %zu", block, need, size);
    }
    read_state(*blocks_, block, fingerprint(), static_cast<std::byte*>(data));
}

int32_t Cache::write(const void* data, size_t size) {
    std::lock_guard<std::mutex> lock(mutex_);
    return write_state(*blocks_, fingerprint(), model_->n_vocab(), static_cast<const std::byte*>(data), size);
}

void Cache::check_view(const hw_view& view, int32_t index) const {
    if (view.n_blocks < 1 || view.blocks == nullptr) {
        fail(HW_ERROR_ARGUMENT, "view %d has no blocks: its own block is the least it needs", index);
    }
    if (view.n_tokens < 1 || view.tokens == nullptr) {
        fail(HW_ERROR_ARGUMENT, "view %d has no tokens", index);
    }
    std::set<int32_t> seen;
    for (int32_t i = 0; i < view.n_blocks; i++) {
        blocks_->check_block(view.blocks[i]);
        if (!seen.insert(view.blocks[i]).second) {
            fail(HW_ERROR_ARGUMENT, "block %d stands twice in view %d", view.blocks[i], index);
        }
    }
    for (int32_t i = 0; i < view.n_tokens; i++) {
        if (view.tokens[i] < 0 || view.tokens[i] >= model_->n_vocab()) {
            fail(HW_ERROR_ARGUMENT, "token %d of view %d is %d: it must be 0 to %d", i, index, view.tokens[i],
                 model_->n_vocab() - 1);
        }
    }
    check_outputs(view, index, model_->n_vocab());
}

void Cache::check_views(const hw_view* views, int32_t n_views) const {
    if (views == nullptr || n_views < 1) {
        fail(HW_ERROR_ARGUMENT, "there are no views to decode");
    }
    std::set<int32_t> own;
    std::set<const hw_sampler*> samplers;
    for (int32_t i = 0; i < n_views; i++) {
        check_view(views[i], i);
        if (!own.insert(own_block(views[i])).second) {
            fail(HW_ERROR_ARGUMENT, "block %d is the own block of two views", own_block(views[i]));
        }
        if (views[i].sampler != nullptr && !samplers.insert(views[i].sampler).second) {
            fail(HW_ERROR_ARGUMENT, "the sampler of view %d is that of another view too", i);
        }
    }
}

void Cache::check_batch(int64_t n_tokens) const {
    if (n_tokens > n_batch_) {
        fail(HW_ERROR_BATCH, "%d tokens in one call do not fit n_batch (%d)", static_cast<int>(n_tokens), n_batch_);
    }
}

// ggml ends the process where a row is looked up that is not there.
void Cache::check_positions(const Pass& pass) const {
    const int64_t n = source_.spec().n_positions;
    const int32_t last = *std::max_element(pass.view_positions.begin(), pass.view_positions.end());
    if (n > 0 && last >= n) {
        fail(HW_ERROR_ARGUMENT,
             "a view would have %d tokens: this model has learned positions, for a context of %d tokens and no more",
             last + 1, static_cast<int>(n));
    }
}

// An empty block has its origin anew: if the pass fails, the next one gives it another.
void Cache::give_origins(const hw_view* views, int32_t n_views) {
    for (int32_t i = 0; i < n_views; i++) {
        const int32_t own = own_block(views[i]);
        if (blocks_->len(own) == 0) {
            blocks_->set_origin(own, origin_for(blocks_->table(), views, n_views, own));
        }
    }
}

// One for each space.
std::vector<Pass> Cache::plan_passes(const hw_view* views, int32_t n_views) {
    const std::vector<Window> windows = source_.spec().windows();
    std::vector<Pass> passes;
    for (KeptMirrors& mirrors : mirrors_) {
        const BlockTable& table = blocks_->spaces()[passes.size()].table();
        Pass pass = make_pass(table, windows[passes.size()], views, n_views);
        check_positions(pass);
        mirrors.tokens_overwritten(pass);
        pass.flash = choice_->flash_plan(pass, table, mirrors);
        passes.push_back(std::move(pass));
    }
    return passes;
}

MapPass Cache::plan_maps(const hw_view* views, const Pass& pass) {
    std::vector<FedView> fed;
    for (size_t i = 0; i < pass.views.size(); i++) {
        fed.push_back({views[i].blocks, views[i].n_blocks, pass.views[i].first_token, pass.views[i].n_tokens});
    }
    return blocks_->maps().plan(fed);
}

PassGraph& Cache::graph_for(const std::vector<Pass>& passes, const RecurrentPlan& recurrent) {
    const Pass& pass = passes.front();
    const PassSize size = size_of_pass(pass.n_tokens(), pass.n_outputs(), n_batch_);
    const auto found = std::find_if(graphs_.begin(), graphs_.end(),
                                    [&](const PassGraph& graph) { return graph.serves(passes, recurrent, size); });
    if (found != graphs_.end()) {
        graphs_.splice(graphs_.begin(), graphs_, found);
        return graphs_.front();
    }
    const auto is_large = [](const PassGraph& graph) { return graph.n_tokens() > large; };
    while (graphs_.size() >= max_graphs) {
        graphs_.pop_back();
    }
    while (size.n_tokens > large &&
           std::count_if(graphs_.begin(), graphs_.end(), is_large) >= static_cast<int>(max_large_graphs)) {
        graphs_.erase(std::prev(std::find_if(graphs_.rbegin(), graphs_.rend(), is_large).base()));
    }
    if (!graphs_.empty()) {
        try {
            return build_graph(passes, recurrent, size);
        } catch (const Error& error) {
            if (error.status() != HW_ERROR_MEMORY) {
                throw;
            }
        } catch (const std::bad_alloc&) {
        }
        graphs_.clear();  // those of other sizes hold buffers, and can be built again
        source_.forget();
    }
    return build_graph(passes, recurrent, size);
}

PassGraph& Cache::build_graph(const std::vector<Pass>& passes, const RecurrentPlan& recurrent, const PassSize& size) {
    std::vector<ScratchCells> scratch;
    for (const CellSpace& space : blocks_->spaces()) {
        scratch.push_back(space.scratch());
    }
    graphs_.emplace_front(source_, *store_, backends_, passes, recurrent, size, std::move(scratch), *choice_,
                          model_->n_threads());
    counts_.n_graphs++;
    return graphs_.front();
}

// What the blocks of views need: room for their tokens, near the longest block of the view.
std::vector<Growth> Cache::growth_of(const hw_view* views, int32_t n_views) const {
    std::map<int32_t, Growth> growth;
    for (int32_t i = 0; i < n_views; i++) {
        const hw_view& view = views[i];
        const int32_t longest = *std::max_element(view.blocks, view.blocks + view.n_blocks, [&](int32_t a, int32_t b) {
            return blocks_->len(a) < blocks_->len(b);
        });
        for (int32_t k = 0; k < view.n_blocks; k++) {
            const int32_t block = view.blocks[k];
            growth.emplace(block, Growth{block, 0, block != longest ? longest : 0});
        }
        growth.at(own_block(view)).n = view.n_tokens;
    }
    std::vector<Growth> result;
    for (const auto& entry : growth) {
        result.push_back(entry.second);
    }
    return result;
}

void Cache::decode(const hw_view* views, int32_t n_views) {
    std::lock_guard<std::mutex> lock(mutex_);
    check_views(views, n_views);
    int64_t n_tokens = 0;
    for (int32_t i = 0; i < n_views; i++) {
        n_tokens += views[i].n_tokens;
    }
    check_batch(n_tokens);
    blocks_->reserve(growth_of(views, n_views));
    give_origins(views, n_views);
    compute(views, n_views, nullptr);
}

void Cache::decode_chunk(const hw_view& view, const hw_chunk& chunk) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (blocks_->maps().is_used()) {
        fail(HW_ERROR_UNSUPPORTED,
             "architecture '%s' has recurrent layers: its prompts cannot be cut over several ranks",
             model_->architecture().c_str());
    }
    check_views(&view, 1);
    const int32_t n_elsewhere = check_chunk(chunk, view, store_->layers().size());
    hw_view own = view;
    own.tokens += n_elsewhere;
    own.n_tokens -= n_elsewhere;
    check_batch(own.n_tokens);
    const int32_t block = own_block(view);
    blocks_->reserve({{block, view.n_tokens}});
    give_origins(&view, 1);
    PromisedTokens promised(*blocks_, block, view.tokens, n_elsewhere);
    blocks_->reserve({{block, own.n_tokens}});
    std::vector<int64_t> begin;
    for (KeptMirrors& mirrors : mirrors_) {
        begin.push_back(blocks_->spaces()[begin.size()].table().run(block).end() - n_elsewhere);
        mirrors.overwritten(begin.back(), n_elsewhere);
    }
    ChunkExchange exchange(*store_, chunk, begin, own.n_tokens);
    compute(&own, 1, &exchange);
    promised.keep();
}

size_t Cache::layer_bytes(int32_t layer, int32_t n) const {
    return hw::layer_bytes(std::next(store_->layers().begin(), layer)->second, n);
}

bool Cache::is_windowed(int32_t layer) const { return std::next(store_->layers().begin(), layer)->second.space > 0; }

// Not where they would give other results, as ggml's flash attention does, which cuts keys by their number; nor where
// there are devices, for which threads wait too.
bool Cache::may_take_fewer_threads() const {
    return model_->n_threads() > 1 && model_->devices().empty() && !choice_->may_flash();
}

// What a pass that was computed leaves behind, but for its tokens.
void Cache::note(const std::vector<Pass>& passes, const PassGraph& graph) {
    counts_.n_scores += graph.n_scores(passes);
    counts_.n_composed += graph.n_composed_states();
    size_t space = 0;
    for (KeptMirrors& mirrors : mirrors_) {
        const Pass& pass = passes[space];
        if (pass.flash) {
            mirrors.after(*pass.flash, pass, blocks_->spaces()[space].table());
            counts_.n_mirrored += pass.flash->n_keys;
            counts_.n_mirrored_values += pass.flash->n_values;
        }
        space++;
    }
}

// One pass. There is room for the tokens of the views, and their blocks have origins.
void Cache::compute(const hw_view* views, int32_t n_views, LayerHook* hook) {
    const std::vector<Pass> passes = plan_passes(views, n_views);
    MapPass maps = plan_maps(views, passes.front());
    PassGraph& graph = graph_for(passes, maps.plan);
    if (graph.n_composed_states() > 0) {
        blocks_->maps().add_begins(&maps);
    }
    backends_.set_n_threads(hook == nullptr ? n_threads_.n() : model_->n_threads_chunk());
    auto mirrors = mirrors_.begin();
    for (const Pass& pass : passes) {
        if (pass.flash) {
            mirrors->before(*pass.flash, pass);
        }
        mirrors++;
    }
    std::optional<PassClock> clock;
    if (hook == nullptr && may_take_fewer_threads()) {
        clock.emplace();
    }
    graph.run(passes, maps.plan, hook, node_times_ ? &*node_times_ : nullptr);
    if (clock) {
        n_threads_.note(clock->time());
    }
    note(passes, graph);
    Outputs outputs(views, n_views, graph.logits());
    outputs.write();
    for (int32_t i = 0; i < n_views; i++) {
        blocks_->grow(own_block(views[i]), views[i].tokens, views[i].n_tokens);
    }
    blocks_->maps().commit(std::move(maps));
    outputs.sample(&pool_);
}

}  // namespace hw
