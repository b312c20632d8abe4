#include "engine/kv-move.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "cache/layer-cells.h"
#include "graph/graph-inputs.h"
#include "graph/key-turn.h"
#include "model/ggml-context.h"

namespace hw {

namespace {

// Cells a graph: bounds the memory of what is read before it is written.
constexpr int64_t chunk = 512;
constexpr size_t nodes_a_layer = 24;

// Cells as what they are copied by. Few backends copy quantized rows that do not all lie side by side, but all copy
// 16-bit numbers, and the blocks of all quantized types are a whole number of those.
ggml_tensor* words_of(ggml_context* ctx, ggml_tensor* store, int64_t begin, int64_t n) {
    ggml_tensor* cells = cells_of(ctx, store, begin, n);
    if (ggml_is_quantized(cells->type)) {
        cells->ne[0] = static_cast<int64_t>(ggml_row_size(cells->type, cells->ne[0]) / sizeof(ggml_fp16_t));
        cells->type = GGML_TYPE_F16;
        cells->nb[0] = sizeof(ggml_fp16_t);
    }
    return cells;
}

void copy_cells(ggml_context* ctx, ggml_cgraph* graph, ggml_tensor* store, const CellMove& move) {
    ggml_tensor* read = ggml_cont(ctx, words_of(ctx, store, move.from, move.n));
    ggml_build_forward_expand(graph, ggml_cpy(ctx, read, words_of(ctx, store, move.to, move.n)));
}

}  // namespace

KvMover::KvMover(const ModelSpec& spec, std::map<int, KvTensors> layers, Backends& backends, KeptMirrors& mirrors)
    : spec_(spec),
      layers_(std::move(layers)),
      mirrors_(mirrors),
      scheduler_(backends.new_scheduler(layers_.size() * nodes_a_layer + 16)) {}

void KvMover::turn(const CellMove& move, int64_t key_turn) {
    mirrors_.overwritten(move.to, move.n);
    for (int64_t done = 0; done < move.n; done += chunk) {
        run({move.from + done, move.to + done, std::min(chunk, move.n - done)}, key_turn);
    }
}

// What is not in the CPU's memory was cleared when it was allocated (kv-store.cpp).
bool KvMover::open(int64_t begin, int64_t n) {
    size_t n_bytes = 0;
    for (const auto& entry : layers_) {
        n_bytes += is_lazy(entry.second) ? layer_bytes(entry.second, n) : 0;
    }
    if (n_bytes > free_host_memory()) {
        return false;
    }
    for (const auto& entry : layers_) {
        if (is_lazy(entry.second)) {
            clear_layer(entry.second, begin, n);
        }
    }
    return true;
}

size_t KvMover::n_bytes(int64_t n) const {
    size_t sum = 0;
    for (const auto& entry : layers_) {
        sum += layer_bytes(entry.second, n);
    }
    return sum;
}

void KvMover::read(int64_t begin, int64_t n, std::byte* data) const {
    for (const auto& entry : layers_) {
        read_layer(entry.second, begin, n, data);
        data += layer_bytes(entry.second, n);
    }
}

void KvMover::write(int64_t begin, int64_t n, const std::byte* data, int64_t n_data) {
    mirrors_.overwritten(begin, n);
    for (const auto& entry : layers_) {
        write_layer(entry.second, begin, n, data, n_data);
        data += layer_bytes(entry.second, n_data);
    }
}

bool KvMover::can_be_stored(int64_t n, const std::byte* data) const {
    for (const auto& entry : layers_) {
        if (!hw::can_be_stored(entry.second, n, data)) {
            return false;
        }
        data += layer_bytes(entry.second, n);
    }
    return true;
}

// Source and target are the same cells, or have none in common.
void KvMover::run(const CellMove& move, int64_t key_turn) {
    LogScope log;
    const size_t n_nodes = layers_.size() * nodes_a_layer + 16;
    const ggml_context_ptr owner = new_context(n_nodes, n_nodes);
    ggml_context* ctx = owner.get();
    ggml_cgraph* graph = ggml_new_graph_custom(ctx, n_nodes, false);
    ggml_tensor* key_turns = new_input(ctx, GGML_TYPE_I32, move.n * spec_.n_pos_per_token, "key_turns");
    CellsInput sources;
    ggml_tensor* targets = new_input(ctx, GGML_TYPE_I64, move.n, "targets");

    const bool is_copy = move.from != move.to;
    for (const auto& [index, tensors] : layers_) {
        const std::optional<RopeParams>& rope = spec_.layers.at(index).key_rope;
        if (key_turn != 0 && rope) {
            ggml_tensor* keys = ggml_get_rows(ctx, tensors.k, sources.of(ctx, move.n, tensors.k->ne[2]));
            keys = turned_keys(ctx, *rope, tensors, keys, key_turns);
            ggml_build_forward_expand(graph, ggml_set_rows(ctx, tensors.k, keys, targets));
        } else if (is_copy) {
            copy_cells(ctx, graph, tensors.k, move);
        }
        if (tensors.has_values() && is_copy) {
            copy_cells(ctx, graph, tensors.v, move);
        }
    }
    if (ggml_graph_n_nodes(graph) == 0) {
        return;  // keys that turn nowhere are where they are to be
    }
    ggml_backend_sched_reset(scheduler_.get());
    if (!ggml_backend_sched_alloc_graph(scheduler_.get(), graph)) {
        fail(HW_ERROR_MEMORY, "no memory to move %d cells: %s", static_cast<int>(move.n), log.errors().c_str());
    }
    const size_t n = static_cast<size_t>(move.n);
    std::vector<int32_t> from(n);
    std::vector<int64_t> to(n);
    std::iota(from.begin(), from.end(), static_cast<int32_t>(move.from));
    std::iota(to.begin(), to.end(), move.to);
    sources.set(from);
    set_input(targets, to);
    set_positions(key_turns, std::vector<int32_t>(n, static_cast<int32_t>(key_turn)), spec_.n_pos_per_token);
    if (ggml_backend_sched_graph_compute(scheduler_.get(), graph) != GGML_STATUS_SUCCESS) {
        fail(HW_ERROR_COMPUTE, "a backend failed while moving cells: %s", log.errors().c_str());
    }
}

}  // namespace hw
