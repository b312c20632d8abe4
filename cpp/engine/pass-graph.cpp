#include "engine/pass-graph.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <unordered_set>

#include "attention/composed.h"
#include "attention/flash.h"
#include "attention/fused.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "graph/graph-inputs.h"
#include "model/devices.h"
#include "model/ggml-context.h"

namespace hw {

namespace {

// Upper bounds of what our attention adds to a graph, with room to spare: ggml ends the process where one is passed.
// Each costs a few hundred bytes that are never touched, but some 20 KiB of a scheduler: that one is made by count.
constexpr size_t nodes_a_site = 24;
constexpr size_t nodes_a_group = 16;  // of a site; of views that share no block
constexpr size_t nodes_a_block = 16;  // of a site
constexpr size_t nodes_a_state = 24;  // of a recurrence
constexpr size_t nodes_a_recurrence = 24;

// Each product may have its rows quantized by a node of its own.
size_t count_products(ggml_cgraph* graph) {
    size_t n = 0;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        n += ggml_graph_node(graph, i)->op == GGML_OP_MUL_MAT ? 1 : 0;
    }
    return n;
}

// Each copy of a query's rotation is at most all that follows from a ROPE.
size_t count_nodes(const SourceGraph& source, const std::vector<Pass>& passes, const RecurrentPlan& recurrent) {
    const size_t n_sites = source.sites.size();
    size_t n = static_cast<size_t>(ggml_graph_size(source.graph)) + count_products(source.graph) +
               n_sites * nodes_a_site + source.recurrences.size() * nodes_a_recurrence;
    for (const Pass& pass : passes) {
        const size_t n_views = std::max(pass.blocks.size(), static_cast<size_t>(pass.max_pairs)) + 4;
        n += pass.groups.size() * n_sites * nodes_a_group +
             n_views * (n_sites * nodes_a_block + source.rope_results.size());
    }
    for (const StateTokens& view : state_tokens(recurrent)) {
        n += source.recurrences.size() * nodes_a_state * (2 + view.n_tokens.size());
    }
    return n;
}

// Nodes and leafs; twice, for the copies between devices are counted by the scheduler too.
size_t count_tensors(ggml_cgraph* graph) {
    std::unordered_set<const ggml_tensor*> leafs;
    const int n_nodes = ggml_graph_n_nodes(graph);
    for (int i = 0; i < n_nodes; i++) {
        for (const ggml_tensor* source : ggml_graph_node(graph, i)->src) {
            if (source != nullptr && source->op == GGML_OP_NONE) {
                leafs.insert(source);
            }
        }
    }
    return 2 * (static_cast<size_t>(n_nodes) + leafs.size());
}

std::vector<float> query_scales(const std::vector<int32_t>& positions, const QueryTemperature& temperature, size_t n) {
    std::vector<float> scales(n, 1.0f);
    for (size_t i = 0; i < positions.size(); i++) {
        const float step = std::floor((static_cast<float>(positions[i]) + temperature.offset) / temperature.length);
        scales[i] = std::log(step + 1.0f) * temperature.factor + 1.0f;
    }
    return scales;
}

}  // namespace

PassGraph::PassGraph(GraphSource& source, const KvStore& store, Backends& backends, const std::vector<Pass>& passes,
                     const RecurrentPlan& recurrent, const PassSize& size, std::vector<ScratchCells> scratch,
                     const AttentionChoice& choice, int32_t n_threads)
    : size_(size),
      scratch_(std::move(scratch)),
      spec_(source.spec()),
      attentions_(passes.size()),
      recurrent_(spec_.recurrences, size.n_tokens, n_threads, recurrent, choice.wants_ggml()),
      products_(backends.has_devices(), n_threads) {
    LogScope log;
    const SourceGraph& from = source.of(size.n_tokens, size.n_outputs);
    const size_t n_nodes = count_nodes(from, passes, recurrent);
    ctx_ = new_context(n_nodes, n_nodes);
    graph_ = ggml_new_graph_custom(ctx_.get(), n_nodes, false);

    source.named([&] { build(from, source.spec(), store, passes, choice, n_threads); });
    scheduler_ = backends.new_scheduler(count_tensors(graph_));
    choose_backends(backends, store);
    const bool is_there = ggml_backend_sched_alloc_graph(scheduler_.get(), graph_);
    if (!is_there || backends.n_host_bytes(scheduler_.get()) > free_host_memory()) {
        fail(HW_ERROR_MEMORY, "no memory to compute %d tokens at once, %d with logits: %s", size.n_tokens,
             size.n_outputs, log.errors().c_str());
    }
}

void PassGraph::build(const SourceGraph& from, const ModelSpec& spec, const KvStore& store,
                      const std::vector<Pass>& passes, const AttentionChoice& choice, int32_t n_threads) {
    const auto make = [&](AttentionForm form, size_t space) -> std::unique_ptr<Attention> {
        const Pass& pass = passes[space];
        switch (form) {
            case AttentionForm::fused:
                return std::make_unique<FusedAttention>(pass, size_.n_tokens, n_threads);
            case AttentionForm::flash:
                return std::make_unique<FlashAttention>(pass, size_.n_tokens, scratch_[space]);
            case AttentionForm::composed:
                break;
        }
        return std::make_unique<ComposedAttention>(pass, size_.n_tokens, scratch_[space].begin);
    };
    Rewire rewire(from, spec, store, ctx_.get(), size_.n_tokens, size_.n_outputs);
    const auto attend = [&](const SiteInputs& in) {
        const size_t space = in.layer.space();
        const AttentionForm form = choice.form(in.site.spec.layer, passes[space]);
        std::unique_ptr<Attention>& used = attentions_[space][form];
        if (used == nullptr) {
            used = make(form, space);
        }
        return used->build(in);
    };
    const auto recur = [&](ggml_context* ctx, const RecurrenceSite& site, const std::vector<ggml_tensor*>& sources) {
        return recurrent_.build(ctx, site, sources);
    };
    const auto multiply = [&](ggml_context* ctx, const ggml_tensor* node, ggml_tensor* x) {
        return products_.build(ctx, node, x);
    };
    logits_ = rewire.run(graph_, {attend, recur, multiply});
    inputs_ = rewire.inputs();
    cuts_ = LayerCuts(rewire.stores());
}

// The scheduler chooses by where weights lie, and goes on from there. It must be told what it cannot know.
void PassGraph::choose_backends(const Backends& backends, const KvStore& store) {
    bool is_all_offloaded = true;
    for (const auto& entry : store.layers()) {
        is_all_offloaded = is_all_offloaded && backends.of(device_of(entry.second.k)) != backends.cpu();
    }
    for (const ComposedStates::Placed& placed : recurrent_.states().placed()) {
        ggml_backend_sched_set_tensor_backend(scheduler_.get(), placed.node, backends.of(placed.device));
    }
    for (ggml_tensor* node : recurrent_.nodes_here()) {
        ggml_backend_sched_set_tensor_backend(scheduler_.get(), node, backends.cpu());
    }
    for (int i = 0; i < ggml_graph_n_nodes(graph_); i++) {
        ggml_tensor* node = ggml_graph_node(graph_, i);
        int layer = -1;
        if (node->op == GGML_OP_CUSTOM) {  // the RPC backend says that it can run everything
            ggml_backend_sched_set_tensor_backend(scheduler_.get(), node, backends.cpu());
        } else if ((size_.n_tokens < 32 || is_all_offloaded) && std::sscanf(node->name, "norm-%d", &layer) == 1) {
            // As llama.cpp: else a layer's first node runs where the last layer ran, and its result is copied too.
            const auto cells = store.layers().find(layer);
            ggml_backend_t backend = cells == store.layers().end() ? nullptr : backends.of(device_of(cells->second.k));
            if (backend != nullptr && ggml_backend_supports_op(backend, node)) {
                ggml_backend_sched_set_tensor_backend(scheduler_.get(), node, backend);
            }
        }
    }
}

bool PassGraph::serves(const std::vector<Pass>& passes, const RecurrentPlan& recurrent, const PassSize& size) const {
    bool serves = size == size_ && recurrent_.serves(recurrent);
    for (size_t space = 0; space < passes.size(); space++) {
        for (const auto& used : attentions_[space]) {
            serves = serves && used.second->serves(passes[space]);
        }
    }
    return serves;
}

int64_t PassGraph::n_scores(const std::vector<Pass>& passes) const {
    int64_t sum = 0;
    for (size_t space = 0; space < passes.size(); space++) {
        for (const auto& used : attentions_[space]) {
            sum += used.second->n_scores(passes[space]);
        }
    }
    return sum;
}

void PassGraph::set_inputs(const std::vector<Pass>& passes) {
    const Pass& pass = passes.front();
    const size_t n = static_cast<size_t>(size_.n_tokens);
    std::vector<int32_t> tokens(pass.tokens);
    std::vector<int32_t> positions(pass.positions);
    std::vector<int32_t> view_positions(pass.view_positions);
    std::vector<int32_t> outputs(pass.outputs);
    tokens.resize(n, 0);
    positions.resize(n, 0);
    view_positions.resize(n, 0);
    outputs.resize(static_cast<size_t>(size_.n_outputs), 0);
    set_input(inputs_.tokens, tokens);
    set_positions(inputs_.positions, positions, spec_.n_pos_per_token);
    set_positions(inputs_.view_positions, view_positions, spec_.n_pos_per_token);
    set_input(inputs_.out_ids, outputs);
    recurrent_.states().set_inputs();
    set_input(inputs_.query_scales, query_scales(pass.view_positions, spec_.temperature, n));
    for (size_t space = 0; space < passes.size(); space++) {
        std::vector<int64_t> cells(passes[space].cells);
        fill_up(&cells, size_.n_tokens, scratch_[space]);
        set_input(inputs_.cells[space], cells);
        for (const auto& used : attentions_[space]) {
            used.second->set_inputs(passes[space], spec_.n_pos_per_token);
        }
    }
}

void PassGraph::run(const std::vector<Pass>& passes, const RecurrentPlan& recurrent, LayerHook* hook,
                    NodeTimes* times) {
    LogScope log;
    require_memory(0, "a pass");
    set_inputs(passes);
    recurrent_.set_plan(&recurrent);
    const ggml_status status = hook != nullptr    ? cuts_.compute(scheduler_.get(), graph_, hook)
                               : times != nullptr ? times->compute(scheduler_.get(), graph_)
                                                  : ggml_backend_sched_graph_compute(scheduler_.get(), graph_);
    if (status != GGML_STATUS_SUCCESS) {
        fail(HW_ERROR_COMPUTE, "a backend failed (%s): %s", ggml_status_to_string(status), log.errors().c_str());
    }
}

}  // namespace hw
