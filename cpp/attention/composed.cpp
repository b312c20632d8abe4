#include "attention/composed.h"

#include <algorithm>
#include <numeric>

#include "attention/group-rows.h"
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

ComposedAttention::ComposedAttention(const Pass& pass, int32_t n_rows, int64_t n_cells)
    : n_rows_(n_rows),
      n_cells_(n_cells),
      blocks_(padded(pass)),
      groups_(groups_of(pass)),
      gathered_(blocks_.size()),
      masks_(groups_.size()) {
    for (Group& group : groups_) {
        for (int32_t i = 0; i < group.n_blocks; i++) {
            group.n_keys += blocks_[static_cast<size_t>(group.first_block + i)].n_cells;
        }
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

std::vector<ComposedAttention::Group> ComposedAttention::groups_of(const Pass& pass) const {
    const std::vector<int32_t> rows = pass.rows_of_groups(n_rows_);
    std::vector<Group> result;
    for (size_t i = 0; i < rows.size(); i++) {
        const PassGroup& group = pass.groups[i];
        result.push_back({group.first_token, rows[i], group.first_block, group.n_blocks, 0});
    }
    return result;
}

bool ComposedAttention::serves(const Pass& pass) const {
    const std::vector<PassBlock> other = padded(pass);
    return !pass.flash && groups_of(pass) == groups_ &&
           std::equal(
               blocks_.begin(), blocks_.end(), other.begin(), other.end(),
               [](const PassBlock& a, const PassBlock& b) { return a.begin == b.begin && a.n_cells == b.n_cells; });
}

int64_t ComposedAttention::n_scores(const Pass& /*pass*/) const {
    int64_t n = 0;
    for (const Group& group : groups_) {
        n += group.n_keys * group.n_rows;
    }
    return n;
}

ggml_tensor* ComposedAttention::build(const SiteInputs& in) {
    has_gains_ = has_gains_ || in.layer.key_gain != nullptr;
    queries_.clear();
    ggml_tensor* all = nullptr;
    for (size_t group = 0; group < groups_.size(); group++) {
        all = joined(in.ctx, all, attend(in, group));
    }
    return all;  // [d_v, H, T]
}

ggml_tensor* ComposedAttention::attend(const SiteInputs& in, size_t group) {
    ggml_context* ctx = in.ctx;
    ggml_tensor* weights = scores(in, group);  // [sum of lengths, rows, H]
    ggml_tensor* result = nullptr;
    size_t offset = 0;
    for (int32_t slot = 0; slot < groups_[group].n_blocks; slot++) {
        const size_t i = static_cast<size_t>(groups_[group].first_block + slot);
        const int64_t n = blocks_[i].n_cells;
        ggml_tensor* part =
            ggml_view_3d(ctx, weights, n, weights->ne[1], weights->ne[2], weights->nb[1], weights->nb[2], offset);
        offset += static_cast<size_t>(n) * weights->nb[0];
        ggml_tensor* values = ggml_transpose(ctx, cells_in(ctx, in.stored.v, i));  // [n, d_v, Hkv]
        ggml_tensor* sum = ggml_mul_mat(ctx, ggml_cont(ctx, values), part);        // [d_v, rows, H]
        result = result == nullptr ? sum : ggml_add(ctx, result, sum);
    }
    return ggml_cont(ctx, ggml_permute(ctx, result, 0, 2, 1, 3));  // [d_v, rows, H] -> [d_v, H, rows]
}

// The queries of all groups, turned for the block that each sees at this slot: one rotation a slot, not a block.
ggml_tensor* ComposedAttention::query(const SiteInputs& in, size_t slot) {
    ggml_context* ctx = in.ctx;
    while (distances_.size() <= slot) {
        distances_.push_back(new_input(ctx, GGML_TYPE_I32, int64_t{n_rows_} * in.n_pos_per_token, "distances"));
    }
    queries_.resize(std::max(queries_.size(), slot + 1), nullptr);
    if (queries_[slot] == nullptr) {
        queries_[slot] = hadamard(ctx, in.query.at(distances_[slot]), in.stored.hadamard_k);
    }
    return queries_[slot];
}

// One product a block; then one softmax over the keys of all blocks of the group.
ggml_tensor* ComposedAttention::scores(const SiteInputs& in, size_t group) {
    ggml_context* ctx = in.ctx;
    const AttentionSpec& spec = in.site.spec;
    const Group& own = groups_[group];
    ggml_tensor* scores = nullptr;
    for (int32_t slot = own.n_blocks; slot-- > 0;) {  // from the last on: long blocks stand first, and are copied once
        ggml_tensor* q = rows_of_queries(ctx, query(in, static_cast<size_t>(slot)), own.first_row, own.n_rows);
        const size_t block = static_cast<size_t>(own.first_block + slot);
        ggml_tensor* part = ggml_mul_mat(ctx, cells_in(ctx, in.stored.k, block), q);  // [n, rows, H]
        ggml_prec_set_acc(part, GGML_PREC_F32);
        scores = scores == nullptr ? part : ggml_concat(ctx, part, scores, 0);
    }
    float scale = spec.scale;
    if (spec.soft_cap > 0.0f) {
        scores = ggml_scale(ctx, ggml_tanh(ctx, ggml_scale(ctx, scores, scale / spec.soft_cap)), spec.soft_cap);
        scale = 1.0f;
    }
    scores = ggml_soft_max_ext(ctx, scores,
                               masks_[group].of(ctx, in.layer.window, spec.max_bias > 0.0f, own.n_keys, own.n_rows),
                               scale, spec.max_bias);
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
    std::vector<std::vector<int32_t>> turns(distances_.size(), std::vector<int32_t>(static_cast<size_t>(n_rows_), 0));
    std::vector<int64_t> first_key;
    for (size_t group = 0; group < groups_.size(); group++) {
        add_first_keys(pass, group, &first_key);
        masks_[group].set_inputs(pass, pass.groups[group], first_key);
        for (int32_t i = 0; i < pass.groups[group].n_pairs; i++) {
            const PassPair& pair = pass.pairs[static_cast<size_t>(pass.groups[group].first_pair + i)];
            const size_t slot = static_cast<size_t>(pair.block - groups_[group].first_block);
            turns[slot][static_cast<size_t>(pair.token)] = pass.query_turn(pair, has_gains_);
        }
    }
    for (size_t slot = 0; slot < distances_.size(); slot++) {
        set_positions(distances_[slot], turns[slot], n_pos_per_token);
    }
    for (size_t i = 0; i < blocks_.size(); i++) {
        if (gathered_[i].is_used()) {
            std::vector<int32_t> cells(static_cast<size_t>(blocks_[i].n_cells));
            std::iota(cells.begin(), cells.end(), static_cast<int32_t>(blocks_[i].begin));
            gathered_[i].set(cells);
        }
    }
}

// Where the blocks of a group's pairs begin among its keys.
void ComposedAttention::add_first_keys(const Pass& pass, size_t group, std::vector<int64_t>* first_key) const {
    const PassGroup& own = pass.groups[group];
    std::vector<int64_t> first_of_block(1, 0);
    for (int32_t i = 0; i < own.n_blocks; i++) {
        const PassBlock& block = blocks_[static_cast<size_t>(own.first_block + i)];
        first_of_block.push_back(first_of_block.back() + block.n_cells);
    }
    for (int32_t i = 0; i < own.n_pairs; i++) {
        const PassPair& pair = pass.pairs[static_cast<size_t>(own.first_pair + i)];
        first_key->push_back(first_of_block[static_cast<size_t>(pair.block - own.first_block)]);
    }
}

}  // namespace hw
