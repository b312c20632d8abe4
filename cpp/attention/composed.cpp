#include "attention/composed.h"

#include <algorithm>
#include <numeric>

#include "cache/hadamard.h"
#include "graph/graph-inputs.h"

namespace hw {

namespace {

// Few enough masked cells to be cheap, enough for a graph to serve several passes. A multiple of what GPU kernels tile
// by.
constexpr int64_t length_step = 64;

// Quantized rows can be transposed by no operation, and Vulkan's products with them are wrong where the rows of one
// head do not follow those of another at once. ggml's products with bf16 round the other factor to bf16.
bool is_plain(ggml_type type) { return type == GGML_TYPE_F32 || type == GGML_TYPE_F16; }

}  // namespace

ComposedAttention::ComposedAttention(const Pass& pass, int64_t n_cells)
    : n_cells_(n_cells), blocks_(padded(pass)), gathered_(blocks_.size()) {
    for (const PassBlock& block : blocks_) {
        n_keys_ += block.n_cells;
    }
}

std::vector<PassBlock> ComposedAttention::padded(const Pass& pass) const {
    std::vector<PassBlock> result;
    for (const PassBlock& block : pass.blocks) {
        const int64_t n = GGML_PAD(block.n_cells, length_step);
        result.push_back({block.begin, std::min(n, n_cells_ - block.begin), 0});
    }
    return result;
}

bool ComposedAttention::serves(const Pass& pass) const {
    const std::vector<PassBlock> other = padded(pass);
    return !pass.flash && std::equal(blocks_.begin(), blocks_.end(), other.begin(), other.end(),
                                     [](const PassBlock& a, const PassBlock& b) {
                                         return a.begin == b.begin && a.n_cells == b.n_cells;
                                     });
}

void ComposedAttention::make_distances(const SiteInputs& in, int64_t n_tokens) {
    while (distances_.size() < blocks_.size()) {
        distances_.push_back(new_input(in.ctx, GGML_TYPE_I32, n_tokens * in.n_pos_per_token, "distances"));
    }
}

ggml_tensor* ComposedAttention::build(const SiteInputs& in) {
    make_distances(in, in.site.node->src[0]->ne[1]);
    has_gains_ = has_gains_ || in.layer.key_gain != nullptr;
    ggml_context* ctx = in.ctx;
    ggml_tensor* weights = scores(in);  // [sum of lengths, T, H]
    ggml_tensor* result = nullptr;
    size_t offset = 0;
    for (size_t i = 0; i < blocks_.size(); i++) {
        const int64_t n = blocks_[i].n_cells;
        ggml_tensor* part =
            ggml_view_3d(ctx, weights, n, weights->ne[1], weights->ne[2], weights->nb[1], weights->nb[2], offset);
        offset += static_cast<size_t>(n) * weights->nb[0];
        ggml_tensor* values = ggml_transpose(ctx, cells_in(ctx, in.stored.v, i));  // [n, d_v, Hkv]
        ggml_tensor* sum = ggml_mul_mat(ctx, ggml_cont(ctx, values), part);        // [d_v, T, H]
        result = result == nullptr ? sum : ggml_add(ctx, result, sum);
    }
    return ggml_cont(ctx, ggml_permute(ctx, result, 0, 2, 1, 3));  // [d_v, T, H] -> [d_v, H, T]
}

// One query rotation and one product a block; then one softmax over the keys of all blocks.
ggml_tensor* ComposedAttention::scores(const SiteInputs& in) {
    ggml_context* ctx = in.ctx;
    const AttentionSpec& spec = in.site.spec;
    ggml_tensor* scores = nullptr;
    for (size_t i = blocks_.size(); i-- > 0;) {  // from the last on: long blocks stand first, and are copied once so
        ggml_tensor* q = hadamard(ctx, in.query.at(distances_[i]), in.stored.hadamard_k);
        ggml_tensor* part = ggml_mul_mat(ctx, cells_in(ctx, in.stored.k, i), q);  // [n, T, H]
        ggml_prec_set_acc(part, GGML_PREC_F32);
        scores = scores == nullptr ? part : ggml_concat(ctx, part, scores, 0);
    }
    float scale = spec.scale;
    if (spec.soft_cap > 0.0f) {
        scores = ggml_scale(ctx, ggml_tanh(ctx, ggml_scale(ctx, scores, scale / spec.soft_cap)), spec.soft_cap);
        scale = 1.0f;
    }
    scores = ggml_soft_max_ext(
        ctx, scores, masks_.of(ctx, in.layer.window, spec.max_bias > 0.0f, n_keys_, in.site.node->src[0]->ne[1]), scale,
        spec.max_bias);
    ggml_soft_max_add_sinks(scores, in.sinks);
    return scores;
}

// Keys or values of a block, F32 or F16 [d, n, Hkv].
ggml_tensor* ComposedAttention::cells_in(ggml_context* ctx, ggml_tensor* store, size_t block) {
    const int64_t n = blocks_[block].n_cells;
    if (is_plain(store->type)) {
        return cells_of(ctx, store, blocks_[block].begin, n);
    }
    return ggml_get_rows(ctx, store, gathered_[block].of(ctx, n, store->ne[2]));
}

void ComposedAttention::set_inputs(const Pass& pass, int n_pos_per_token) {
    std::vector<int64_t> first_of_block(1, 0);
    for (const PassBlock& block : blocks_) {
        first_of_block.push_back(first_of_block.back() + block.n_cells);
    }
    const size_t n_tokens = static_cast<size_t>(distances_.front()->ne[0] / n_pos_per_token);
    std::vector<std::vector<int32_t>> turns(blocks_.size(), std::vector<int32_t>(n_tokens, 0));
    std::vector<int64_t> first_key;
    for (const PassPair& pair : pass.pairs) {
        const size_t block = static_cast<size_t>(pair.block);
        first_key.push_back(first_of_block[block]);
        turns[block][static_cast<size_t>(pair.token)] = pass.query_turn(pair, has_gains_);
    }
    masks_.set_inputs(pass, first_key);
    for (size_t i = 0; i < blocks_.size(); i++) {
        set_positions(distances_[i], turns[i], n_pos_per_token);
        if (gathered_[i].is_used()) {
            std::vector<int32_t> cells(static_cast<size_t>(blocks_[i].n_cells));
            std::iota(cells.begin(), cells.end(), static_cast<int32_t>(blocks_[i].begin));
            gathered_[i].set(cells);
        }
    }
}

}  // namespace hw
