#include "attention/fused.h"

#include <algorithm>
#include <cstring>

#include "graph/graph-inputs.h"
#include "graph/rope.h"

namespace hw {

namespace {

// Few sizes, so that graphs serve again.
int32_t round_slots(int32_t n) { return n <= 4 ? n : (n + 3) / 4 * 4; }

AttnRope kind_of(const RopeParams& rope) {
    return rope.mode() == GGML_ROPE_TYPE_NORMAL ? AttnRope::adjacent : AttnRope::halves;
}

// A table of cosines and sines says all of a rotation that begins at dimension 0 and pairs dimensions in a known way.
bool fits_table(const AttentionSite& site) {
    const RopeParams rope = rope_params(*site.rope);
    return site.is_plain_rope && rope.offset() == 0 && rope.mode() != GGML_ROPE_TYPE_VISION &&
           site.rope->ne[0] == site.node->src[0]->ne[0];
}

AttnShape shape_of(const AttentionSite& site, int32_t n_tokens) {
    return {n_tokens, static_cast<int32_t>(site.spec.n_head), static_cast<int32_t>(site.node->src[1]->ne[2]),
            static_cast<int32_t>(site.node->src[1]->ne[0]), static_cast<int32_t>(site.node->src[2]->ne[0])};
}

AttnCache cache_of(const ggml_tensor* cells) { return {cells->data, cells->nb[1], cells->nb[2], cells->type}; }

}  // namespace

FusedAttention::FusedAttention(const Pass& pass, int32_t n_tokens, int32_t n_threads)
    : n_tokens_(n_tokens), n_threads_(n_threads), n_slots_(round_slots(pass.max_pairs)) {}

bool FusedAttention::serves(const Pass& pass) const { return round_slots(pass.max_pairs) == n_slots_; }

int64_t FusedAttention::n_scores(const Pass& pass) const {
    int64_t n = 0;
    for (const PassPair& pair : pass.pairs) {
        n += pair.n_visible;
    }
    return n;
}

FusedAttention::Plan& FusedAttention::plan_for(const AttnShape& shape, bool is_rotated, const Window& window) {
    for (const auto& plan : plans_) {
        if (std::memcmp(&plan->shape, &shape, sizeof(shape)) == 0 && plan->is_rotated == is_rotated &&
            plan->window == window) {
            return *plan;
        }
    }
    plans_.push_back(std::make_unique<Plan>());
    plans_.back()->shape = shape;
    plans_.back()->is_rotated = is_rotated;
    plans_.back()->window = window;
    return *plans_.back();
}

// One table serves all sites whose ROPE has the same parameters.
ggml_tensor* FusedAttention::angles_for(const SiteInputs& in, const RopeParams& rope) {
    for (const Table& table : tables_) {
        if (table.rope == rope) {
            return table.angles;
        }
    }
    ggml_context* ctx = in.ctx;
    const int64_t n_rows = static_cast<int64_t>(n_tokens_) * n_slots_;
    if (table_turns_ == nullptr) {
        table_turns_ = new_input(ctx, GGML_TYPE_I32, n_rows * in.n_pos_per_token, "table_turns");
    }
    Table table = {rope, ggml_new_tensor_3d(ctx, GGML_TYPE_F32, rope.n_dims(), 1, n_rows), nullptr};
    ggml_set_name(table.unit, "unit");
    ggml_set_input(table.unit);
    table.angles = rope_like(ctx, rope, table.unit, table_turns_);
    ggml_set_name(table.angles, "angles");
    tables_.push_back(table);
    return table.angles;
}

// [d_k, H, T * slots], token fastest: the whole chain from ROPE on, once a slot.
ggml_tensor* FusedAttention::rotated_queries(const SiteInputs& in) {
    ggml_context* ctx = in.ctx;
    ggml_tensor* all = nullptr;
    for (int32_t slot = 0; slot < n_slots_; slot++) {
        if (static_cast<int32_t>(query_turns_.size()) == slot) {
            query_turns_.push_back(new_input(ctx, GGML_TYPE_I32, n_tokens_ * in.n_pos_per_token, "query_turns"));
        }
        ggml_tensor* q = in.query.at(query_turns_[static_cast<size_t>(slot)]);  // [d_k, T, H]
        q = ggml_cont(ctx, ggml_permute(ctx, q, 0, 2, 1, 3));
        all = all == nullptr ? q : ggml_concat(ctx, all, q, 2);
    }
    return all;
}

ggml_tensor* FusedAttention::build(const SiteInputs& in) {
    const AttentionSite& site = in.site;
    const KvTensors& stored = in.stored;
    const AttnShape shape = shape_of(site, n_tokens_);
    has_gains_ = has_gains_ || in.layer.key_gain != nullptr;
    const bool is_raw = site.rope == nullptr || fits_table(site);
    sites_.push_back(std::make_unique<Site>());
    Site& data = *sites_.back();
    data = {&plan_for(shape, !is_raw, in.layer.window).plan,
            AttnRope::none,
            site.spec.scale,
            site.spec.soft_cap,
            site.spec.max_bias,
            in.sinks != nullptr,
            0};

    std::vector<ggml_tensor*> args;
    args.push_back(is_raw ? in.query.raw() : rotated_queries(in));  // [d_k, H, T], or [d_k, H, T * slots]
    args.push_back(stored.k);
    args.push_back(stored.v);
    data.hadamard = stored.hadamard_k != nullptr ? static_cast<int32_t>(stored.hadamard_k->ne[0]) : 0;
    if (is_raw && site.rope != nullptr) {
        const RopeParams rope = rope_params(*site.rope);
        data.rope = kind_of(rope);
        args.push_back(angles_for(in, rope));
    }
    if (in.sinks != nullptr) {
        args.push_back(in.sinks);
    }
    return ggml_custom_4d(in.ctx, GGML_TYPE_F32, shape.d_v, shape.n_head, n_tokens_, 1, args.data(),
                          static_cast<int>(args.size()), run, GGML_N_TASKS_MAX, &data);
}

void FusedAttention::run(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const Site& site = *static_cast<const Site*>(userdata);
    const ggml_tensor* q = dst->src[0];
    AttnTensors tensors = {};
    tensors.q = static_cast<const float*>(q->data);
    tensors.q_nb_head = q->nb[1];
    tensors.q_nb_row = q->nb[2];
    tensors.k = cache_of(dst->src[1]);
    tensors.v = cache_of(dst->src[2]);
    tensors.rope = site.rope;
    tensors.hadamard = site.hadamard;
    int next = 3;
    if (site.rope != AttnRope::none) {
        const ggml_tensor* angles = dst->src[next++];
        tensors.n_rot = static_cast<int32_t>(angles->ne[0]);
        tensors.angles = static_cast<const float*>(angles->data);
        tensors.angles_nb_row = angles->nb[2];
    }
    tensors.sinks = site.has_sinks ? static_cast<const float*>(dst->src[next]->data) : nullptr;
    tensors.scale = site.scale;
    tensors.softcap = site.soft_cap;
    tensors.max_bias = site.max_bias;
    tensors.out = static_cast<float*>(dst->data);
    attn_run(*site.plan, tensors, ith, nth);
}

// Slots are numbered in the order of a token's view.
void FusedAttention::set_inputs(const Pass& pass, int n_pos_per_token) {
    std::vector<int32_t> by_row(static_cast<size_t>(n_tokens_) * static_cast<size_t>(n_slots_), 0);  // [T][slots]
    std::vector<std::vector<AttnPair>> of_block(pass.blocks.size());
    int32_t slot = 0;
    int32_t last_token = -1;
    for (const PassPair& pair : pass.pairs) {
        slot = pair.token == last_token ? slot + 1 : 0;
        last_token = pair.token;
        const int32_t row = pair.token * n_slots_ + slot;
        by_row[static_cast<size_t>(row)] = pass.query_turn(pair, has_gains_);
        of_block[static_cast<size_t>(pair.block)].push_back({pair.token, 0, row, 0, pair.n_visible, pair.distance});
    }
    set_turns(by_row, n_pos_per_token);
    set_units();
    build_plans(pass, of_block);
}

void FusedAttention::set_turns(const std::vector<int32_t>& by_row, int n_pos_per_token) const {
    if (table_turns_ != nullptr) {
        set_positions(table_turns_, by_row, n_pos_per_token);
    }
    for (size_t slot = 0; slot < query_turns_.size(); slot++) {
        std::vector<int32_t> of_slot;
        for (size_t row = slot; row < by_row.size(); row += static_cast<size_t>(n_slots_)) {
            of_slot.push_back(by_row[row]);
        }
        set_positions(query_turns_[slot], of_slot, n_pos_per_token);
    }
}

// Inputs are set for every run: the memory of an input is used again once it has been read.
void FusedAttention::set_units() const {
    for (const Table& table : tables_) {
        std::vector<float> unit(static_cast<size_t>(ggml_nelements(table.unit)), 0.0f);
        const size_t n_rot = static_cast<size_t>(table.unit->ne[0]);
        const bool is_adjacent = kind_of(table.rope) == AttnRope::adjacent;
        for (size_t i = 0; i < unit.size(); i++) {
            unit[i] = (is_adjacent ? i % 2 == 0 : i % n_rot < n_rot / 2) ? 1.0f : 0.0f;
        }
        set_input(table.unit, unit);
    }
}

void FusedAttention::build_plans(const Pass& pass, const std::vector<std::vector<AttnPair>>& of_block) const {
    std::vector<AttnBlock> blocks;
    std::vector<AttnPair> pairs;
    for (size_t i = 0; i < pass.blocks.size(); i++) {
        blocks.push_back({static_cast<int32_t>(pass.blocks[i].begin), static_cast<int32_t>(pass.blocks[i].n_cells),
                          static_cast<int32_t>(pairs.size()), static_cast<int32_t>(of_block[i].size())});
        pairs.insert(pairs.end(), of_block[i].begin(), of_block[i].end());
    }
    for (const auto& plan : plans_) {
        for (AttnPair& pair : pairs) {
            const int32_t slot = pair.angle % n_slots_;
            pair.query = plan->is_rotated ? slot * n_tokens_ + pair.token : pair.token;
            pair.first =
                plan->window.first_visible(pass.view_positions[static_cast<size_t>(pair.token)], pair.distance);
        }
        plan->plan.build(*attn_isa(nullptr), plan->shape, blocks.data(), static_cast<int32_t>(blocks.size()),
                         pairs.data(), n_threads_);
    }
}

}  // namespace hw
