#include "engine/chunk.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "base/error.h"
#include "cache/layer-cells.h"

namespace hw {

int32_t check_chunk(const hw_chunk& chunk, const hw_view& view, size_t n_layers) {
    if (chunk.n_runs < 0 || (chunk.n_runs > 0 && chunk.runs == nullptr) || chunk.exchange == nullptr) {
        fail(HW_ERROR_ARGUMENT, "a chunk of %d runs needs their lengths, and a function that exchanges a layer's cells",
             chunk.n_runs);
    }
    int64_t n_elsewhere = 0;
    for (int32_t i = 0; i < chunk.n_runs; i++) {
        if (chunk.runs[i] < 1) {
            fail(HW_ERROR_ARGUMENT, "run %d of a chunk has %d tokens: it must have one at least", i, chunk.runs[i]);
        }
        n_elsewhere += chunk.runs[i];
    }
    if (n_elsewhere >= view.n_tokens) {
        fail(HW_ERROR_ARGUMENT, "of the %d tokens of a view %lld are computed elsewhere: one at least must be left",
             view.n_tokens, static_cast<long long>(n_elsewhere));
    }
    if (view.n_outputs > view.n_tokens - n_elsewhere) {
        fail(HW_ERROR_ARGUMENT, "%d outputs are asked of a chunk of %d tokens", view.n_outputs,
             static_cast<int>(view.n_tokens - n_elsewhere));
    }
    if (chunk.n_runs > 0 || chunk.wants_own) {
        if (chunk.layers == nullptr ||
            std::any_of(chunk.layers, chunk.layers + n_layers, [](const void* data) { return data == nullptr; })) {
            fail(HW_ERROR_ARGUMENT, "a chunk needs memory for each of %zu layers", n_layers);
        }
    }
    return static_cast<int32_t>(n_elsewhere);
}

PromisedTokens::PromisedTokens(Blocks& blocks, int32_t block, const int32_t* tokens, int32_t n)
    : blocks_(blocks), block_(block), n_before_(static_cast<int32_t>(blocks.len(block))) {
    blocks_.grow(block_, tokens, n);
}

PromisedTokens::~PromisedTokens() {
    if (!is_kept_) {
        blocks_.truncate(block_, n_before_);
    }
}

void ChunkExchange::stored(int layer) {
    const auto place = store_.layers().find(layer);
    const int32_t index = static_cast<int32_t>(std::distance(store_.layers().begin(), place));
    const KvTensors& cells = place->second;
    std::byte* data = chunk_.layers == nullptr ? nullptr : static_cast<std::byte*>(chunk_.layers[index]);
    const int64_t n_elsewhere = std::accumulate(chunk_.runs, chunk_.runs + chunk_.n_runs, int64_t{0});
    if (chunk_.wants_own) {
        read_layer(cells, begin_.at(cells.space) + n_elsewhere, n_own_, data + layer_bytes(cells, n_elsewhere));
    }
    if (!chunk_.exchange(index, chunk_.user_data)) {
        fail(HW_ERROR_COMPUTE, "the keys and values of layer %d were not exchanged", layer);
    }
    int64_t begin = begin_.at(cells.space);
    for (int32_t i = 0; i < chunk_.n_runs; i++) {
        const int64_t n = chunk_.runs[i];
        write_layer(cells, begin, n, data, n);
        data += layer_bytes(cells, n);
        begin += n;
    }
}

}  // namespace hw
