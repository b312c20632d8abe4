#include "recurrence/composed-states.h"

#include <algorithm>
#include <numeric>

#include "graph/graph-inputs.h"
#include "kernel/state-layout.h"
#include "recurrence/host-sources.h"

namespace hw {

namespace {

// n tokens of a tensor, where `dim` goes over tokens.
ggml_tensor* tokens_of(ggml_context* ctx, ggml_tensor* tensor, int dim, int64_t first, int64_t n) {
    std::vector<int64_t> ne(tensor->ne, tensor->ne + GGML_MAX_DIMS);
    ne[static_cast<size_t>(dim)] = n;
    return ggml_view_4d(ctx, tensor, ne[0], ne[1], ne[2], ne[3], tensor->nb[1], tensor->nb[2], tensor->nb[3],
                        static_cast<size_t>(first) * tensor->nb[dim]);
}

// As ggml's operation takes it, see kernel/state-layout.h.
std::vector<int64_t> state_shape(const RecurrenceShape& shape) {
    switch (shape.kind) {
        case RecurrenceKind::convolution:
            return {shape.d_k, shape.n_head, 1};
        case RecurrenceKind::linear:
        case RecurrenceKind::wkv7:
            return {shape.d_k * shape.d_v * shape.n_head, 1, 1};
        case RecurrenceKind::diagonal:
        case RecurrenceKind::delta:
            break;
    }
    return {shape.d_k, shape.d_v, shape.n_head};
}

}  // namespace

struct ComposedStates::Made {
    ggml_context* ctx;
    const Recurrence& recurrence;
    const std::vector<ggml_tensor*>& sources;  // of a convolution: rows of inputs [channels, T]
    bool is_shift;                             // a convolution without weights
    ggml_tensor* stored = nullptr;             // the last store, which comes after all before it
    std::vector<ggml_tensor*> outputs = {};    // of each view [numbers, tokens]
    std::vector<ggml_tensor*> nodes = {};      // that a device is to compute

    int token_dim(size_t source) const {
        const bool are_rows = recurrence.shape.kind == RecurrenceKind::convolution && source == 0;
        return are_rows ? 1 : hw::token_dim(recurrence.shape, sources, source);
    }
    ggml_tensor* computed(ggml_tensor* node) {
        nodes.push_back(node);
        return node;
    }
    ggml_tensor* contiguous(ggml_tensor* tensor) {
        return ggml_is_contiguous(tensor) ? tensor : computed(ggml_cont(ctx, tensor));
    }
    // One behind the other.
    ggml_tensor* joined(const std::vector<ggml_tensor*>& parts, int dim) {
        return std::accumulate(parts.begin() + 1, parts.end(), parts.front(), [&](ggml_tensor* all, ggml_tensor* part) {
            return computed(ggml_concat(ctx, all, part, dim));
        });
    }
    // The operation on n tokens behind a state: its outputs, and behind them the new state.
    ggml_tensor* step(ggml_tensor* state, ggml_tensor* ids, int64_t first, int64_t n);
};

ggml_tensor* ComposedStates::Made::step(ggml_tensor* state, ggml_tensor* ids, int64_t first, int64_t n) {
    const RecurrenceKind kind = recurrence.shape.kind;
    std::vector<ggml_tensor*> in;
    for (size_t i = 0; i < sources.size(); i++) {
        const int dim = token_dim(i);
        ggml_tensor* part = dim < 0 ? sources[i] : tokens_of(ctx, sources[i], dim, first, n);
        const bool may_lie_apart =
            (kind == RecurrenceKind::delta && i < 3) || (kind == RecurrenceKind::diagonal && i != 1);
        in.push_back(may_lie_apart ? part : contiguous(part));
    }
    switch (kind) {
        case RecurrenceKind::diagonal:
            return ggml_ssm_scan(ctx, state, in[0], in[1], in[2], in[3], in[4], ids, 1);
        case RecurrenceKind::delta:
            return ggml_gated_delta_net(ctx, in[0], in[1], in[2], in[3], in[4], state, 1);
        case RecurrenceKind::linear:
            return in.size() > 4
                       ? ggml_rwkv_wkv6(ctx, in[1], in[2], in[0], in[4], in[3], state)
                       : ggml_gated_linear_attn(ctx, in[1], in[2], in[0], in[3], state, recurrence.shape.scale);
        case RecurrenceKind::wkv7:
            return ggml_rwkv_wkv7(ctx, in[0], in[1], in[2], in[3], in[4], in[5], state);
        case RecurrenceKind::convolution:
            break;
    }
    return nullptr;
}

ggml_tensor* ComposedStates::build(ggml_context* ctx, const RecurrenceSite& site, const Recurrence& recurrence,
                                   std::vector<ggml_tensor*> sources, ggml_backend_dev_t device,
                                   const BuildRest& rest) {
    const bool is_convolution = site.shape.kind == RecurrenceKind::convolution;
    Made made = {ctx, recurrence, sources, is_convolution && sources.size() == 1};
    const bool lie_turned = is_convolution && !made.is_shift;
    if (lie_turned) {
        sources[0] = ggml_transpose(ctx, sources[0]);
    }
    const size_t n_nodes = nodes_.size();
    const size_t n_loads = n_loads_;
    for (size_t view = 0; view < views_.size(); view++) {
        is_convolution ? convolve(&made, view) : build_view(&made, view);
    }
    std::vector<ggml_tensor*> of_rest = rest_of(&made);
    if (lie_turned) {
        of_rest[0] = ggml_transpose(ctx, of_rest[0]);
    }
    ggml_tensor* rest_out = rest(of_rest, n_rest());
    rest_out->src[GGML_MAX_SRC - 1] = made.stored;
    ggml_tensor* result = with_rest(&made, rest_out);
    const auto has = [&](const ggml_tensor* node) { return ggml_backend_dev_supports_op(device, node); };
    if (!std::all_of(made.nodes.begin(), made.nodes.end(), has)) {
        nodes_.resize(n_nodes);
        n_loads_ = n_loads;
        return nullptr;
    }
    for (ggml_tensor* node : made.nodes) {
        placed_.push_back({node, device});
    }
    return result;
}

void ComposedStates::build_view(Made* made, size_t view) {
    ggml_context* ctx = made->ctx;
    const RecurrenceShape& shape = made->recurrence.shape;
    if (shape.kind == RecurrenceKind::diagonal && ids_ == nullptr) {
        ids_ = new_input(ctx, GGML_TYPE_I32, 1, "state_ids");
    }
    const std::vector<int64_t> ne = state_shape(shape);
    const int64_t n_numbers = shape.d_v * shape.n_head;
    ggml_tensor* state = load(made, view);
    std::vector<ggml_tensor*> outputs;
    int64_t first = views_[view].first_token;
    for (size_t work = 0; work < views_[view].n_tokens.size(); work++) {
        const int64_t n = views_[view].n_tokens[work];
        ggml_tensor* both = made->computed(made->step(state, ids_, first, n));
        const size_t n_row = static_cast<size_t>(n_numbers) * sizeof(float);
        outputs.push_back(ggml_view_2d(ctx, both, n_numbers, n, n_row, 0));
        state = ggml_view_3d(ctx, both, ne[0], ne[1], ne[2], static_cast<size_t>(ne[0]) * sizeof(float),
                             static_cast<size_t>(ne[0] * ne[1]) * sizeof(float), static_cast<size_t>(n) * n_row);
        store(made, view, work, state);
        first += n;
    }
    made->outputs.push_back(made->joined(outputs, 1));
}

// All works at once: what it leaves is among what it reads.
void ComposedStates::convolve(Made* made, size_t view) {
    ggml_context* ctx = made->ctx;
    const int64_t first = views_[view].first_token;
    const int64_t n = views_[view].end() - first;
    ggml_tensor* rows = tokens_of(ctx, made->sources[0], 1, first, n);
    ggml_tensor* before = load(made, view);
    ggml_tensor* all = nullptr;
    if (made->is_shift) {  // [channels, n + 1]
        ggml_tensor* row = ggml_reshape_2d(ctx, before, rows->ne[0], 1);
        all = made->joined({row, rows}, 1);
        made->outputs.push_back(tokens_of(ctx, all, 1, 0, n));
    } else {  // [d_k + n, channels]
        all = made->joined({before, ggml_transpose(ctx, rows)}, 0);
        ggml_tensor* out = made->computed(ggml_ssm_conv(ctx, all, made->sources[1]));
        made->outputs.push_back(ggml_reshape_2d(ctx, out, out->ne[0], n));
    }
    const int dim = made->is_shift ? 1 : 0;
    int64_t end = 0;
    for (size_t work = 0; work < views_[view].n_tokens.size(); work++) {
        end += views_[view].n_tokens[work];
        store(made, view, work, made->contiguous(tokens_of(ctx, all, dim, end, made->recurrence.shape.d_k)));
    }
}

ggml_tensor* ComposedStates::load(Made* made, size_t view) {
    const std::vector<int64_t> ne = state_shape(made->recurrence.shape);
    nodes_.push_back(std::make_unique<Node>(Node{this, &made->recurrence, view, 0}));
    n_loads_++;
    return ggml_custom_4d(made->ctx, GGML_TYPE_F32, ne[0], ne[1], ne[2], 1, nullptr, 0, run_load, 1,
                          nodes_.back().get());
}

void ComposedStates::store(Made* made, size_t view, size_t work, ggml_tensor* state) {
    nodes_.push_back(std::make_unique<Node>(Node{this, &made->recurrence, view, static_cast<int32_t>(work)}));
    ggml_tensor* sources[] = {state, made->stored};
    made->stored = ggml_custom_4d(made->ctx, GGML_TYPE_F32, 1, 1, 1, 1, sources, made->stored != nullptr ? 2 : 1,
                                  run_store, GGML_N_TASKS_MAX, nodes_.back().get());
}

int32_t ComposedStates::n_rest() const {
    return std::accumulate(views_.begin(), views_.end(), n_tokens_,
                           [](int32_t n, const StateTokens& view) { return n - (view.end() - view.first_token); });
}

namespace {

// Calls rest(first, n) for tokens between those of views, and view(i) for these, in the order of tokens.
template <class Rest, class View>
void each_part(const std::vector<StateTokens>& views, int32_t n_tokens, const Rest& rest, const View& view) {
    std::vector<size_t> order(views.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return views[a].first_token < views[b].first_token; });
    int32_t at = 0;
    for (const size_t i : order) {
        if (views[i].first_token > at) {
            rest(at, views[i].first_token - at);
        }
        view(i);
        at = views[i].end();
    }
    if (n_tokens > at) {
        rest(at, n_tokens - at);
    }
}

}  // namespace

std::vector<ggml_tensor*> ComposedStates::rest_of(Made* made) const {
    std::vector<ggml_tensor*> result;
    for (size_t i = 0; i < made->sources.size(); i++) {
        ggml_tensor* source = made->sources[i];
        const int dim = made->token_dim(i);
        std::vector<ggml_tensor*> parts;
        if (dim < 0) {
            parts.push_back(source);
        } else {
            const auto rest = [&](int32_t first, int32_t n) {
                parts.push_back(tokens_of(made->ctx, source, dim, first, n));
            };
            each_part(views_, n_tokens_, rest, [](size_t) {});
        }
        result.push_back(made->joined(parts, dim));
    }
    return result;
}

ggml_tensor* ComposedStates::with_rest(Made* made, ggml_tensor* rest) const {
    std::vector<ggml_tensor*> parts;
    int32_t n_taken = 0;
    const auto of_rest = [&](int32_t, int32_t n) {
        parts.push_back(tokens_of(made->ctx, rest, 1, n_taken, n));
        n_taken += n;
    };
    each_part(views_, n_tokens_, of_rest, [&](size_t view) { parts.push_back(made->outputs[view]); });
    return made->joined(parts, 1);
}

void ComposedStates::set_plan(const RecurrentPlan* plan) {
    plan_ = plan;
    now_ = state_views(*plan);
}

void ComposedStates::set_inputs() const {
    if (ids_ != nullptr) {
        set_input(ids_, std::vector<int32_t>{0});
    }
}

void ComposedStates::run_load(ggml_tensor* dst, int, int, void* data) {
    const Node& node = *static_cast<const Node*>(data);
    const RecurrentView& view = node.all->now_[node.view];
    const RecurrentRun* links = node.all->plan_->links.data() + view.first_link;
    const float* state = nullptr;
    if (view.begin != nullptr) {
        join_runs(*node.recurrence, {links, links + view.n_links}, view.begin);
        state = view.begin;
    } else if (view.n_links > 0) {
        state = links[0].data;
    }
    state_to_ggml(*node.recurrence, state, static_cast<float*>(dst->data), 0, 1);
}

void ComposedStates::run_store(ggml_tensor* dst, int ith, int nth, void* data) {
    const Node& node = *static_cast<const Node*>(data);
    const int32_t first = node.all->now_[node.view].first_work;
    const RecurrentWork& work = node.all->plan_->works[static_cast<size_t>(first + node.work)];
    state_from_ggml(*node.recurrence, static_cast<const float*>(dst->src[0]->data), work.after, ith, nth);
    if (ith == 0) {
        *static_cast<float*>(dst->data) = 0.0f;
    }
}

}  // namespace hw
