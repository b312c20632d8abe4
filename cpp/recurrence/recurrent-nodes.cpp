#include "recurrence/recurrent-nodes.h"

#include <algorithm>

#include "model/devices.h"

namespace hw {

namespace {

const float* data_of(const ggml_tensor* tensor) { return static_cast<const float*>(tensor->data); }

ConvolutionTensors convolution_tensors(const ggml_tensor* dst) {
    const ggml_tensor* x = dst->src[0];  // [T, channels], of a shift [channels, T]
    if (dst->src[1] == nullptr) {
        return {data_of(x), x->nb[1], nullptr, static_cast<float*>(dst->data)};
    }
    return {data_of(x), x->nb[0], data_of(dst->src[1]), static_cast<float*>(dst->data)};
}

DiagonalTensors diagonal_tensors(const ggml_tensor* dst) {
    const ggml_tensor* x = dst->src[0];
    const ggml_tensor* dt = dst->src[1];
    const ggml_tensor* b = dst->src[3];
    const ggml_tensor* c = dst->src[4];
    return {data_of(x), x->nb[2],   data_of(dt), dt->nb[1], data_of(dst->src[2]),          data_of(b),
            b->nb[2],   data_of(c), c->nb[2],    b->ne[1],  static_cast<float*>(dst->data)};
}

HeadRows rows_of(const ggml_tensor* rows) { return {data_of(rows), rows->nb[2], rows->nb[1], rows->ne[1]}; }

DeltaTensors delta_tensors(const ggml_tensor* dst) {
    return {rows_of(dst->src[0]), rows_of(dst->src[1]), rows_of(dst->src[2]),
            rows_of(dst->src[3]), rows_of(dst->src[4]), static_cast<float*>(dst->data)};
}

LinearTensors linear_tensors(const ggml_tensor* dst) {
    const ggml_tensor* decays = dst->src[3];
    const ggml_tensor* bonus = dst->src[4];
    return {rows_of(dst->src[0]),
            rows_of(dst->src[1]),
            rows_of(dst->src[2]),
            decays != nullptr ? rows_of(decays) : HeadRows{},
            bonus != nullptr ? data_of(bonus) : nullptr,
            static_cast<float*>(dst->data)};
}

Wkv7Tensors wkv7_tensors(const ggml_tensor* dst) {
    return {rows_of(dst->src[0]), rows_of(dst->src[1]), rows_of(dst->src[2]),          rows_of(dst->src[3]),
            rows_of(dst->src[4]), rows_of(dst->src[5]), static_cast<float*>(dst->data)};
}

}  // namespace

RecurrentNodes::RecurrentNodes(const std::vector<Recurrence>& recurrences, int32_t n_tokens, int32_t n_threads,
                               const RecurrentPlan& plan, bool composes_all)
    : recurrences_(recurrences),
      n_tokens_(n_tokens),
      composes_all_(composes_all),
      states_(state_tokens(plan), n_tokens) {
    size_t n_scratch = 0;
    for (const Recurrence& recurrence : recurrences) {
        n_scratch = std::max(n_scratch, recurrent_scratch(recurrence.shape, n_tokens));
    }
    if (!recurrences.empty()) {
        scratch_.assign(static_cast<size_t>(n_threads), std::vector<float>(n_scratch));
    }
}

ggml_tensor* RecurrentNodes::build(ggml_context* ctx, const RecurrenceSite& site,
                                   const std::vector<ggml_tensor*>& sources) {
    const Recurrence& recurrence = recurrences_.at(site.index);
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    ggml_backend_dev_t device = site.state != nullptr ? device_of(site.state) : nullptr;
    device = device != nullptr ? device : cpu;  // of the CPU's memory ggml does not say
    const bool composes = site.state != nullptr && (composes_all_ || device != cpu);
    may_compose_ |= composes;
    const auto here = [&](const std::vector<ggml_tensor*>& of_kernel) {
        return device != cpu ? host_.of(ctx, recurrence.shape, of_kernel) : of_kernel;
    };
    if (composes && states_.is_needed()) {
        const auto rest = [&](const std::vector<ggml_tensor*>& of_rest, int32_t n) {
            return build_kernel(ctx, recurrence, here(of_rest), n, &rest_plan_);
        };
        ggml_tensor* result = states_.build(ctx, site, recurrence, sources, device, rest);
        if (result != nullptr) {
            return result;
        }
    }
    return build_kernel(ctx, recurrence, here(sources), n_tokens_, &plan_);
}

ggml_tensor* RecurrentNodes::build_kernel(ggml_context* ctx, const Recurrence& recurrence,
                                          std::vector<ggml_tensor*> sources, int32_t n_tokens,
                                          const RecurrentPlan* const* plan) {
    const RecurrenceShape& shape = recurrence.shape;
    nodes_.push_back(std::make_unique<Node>(Node{this, &recurrence, plan}));
    return ggml_custom_4d(ctx, GGML_TYPE_F32, shape.d_v * shape.n_head, n_tokens, 1, 1, sources.data(),
                          static_cast<int>(sources.size()), run, static_cast<int>(scratch_.size()),
                          nodes_.back().get());
}

void RecurrentNodes::set_plan(const RecurrentPlan* plan) {
    plan_ = plan;
    if (states_.n_states() > 0) {
        rest_ = without_states(*plan);
        states_.set_plan(plan);
    }
}

void RecurrentNodes::run(ggml_tensor* dst, int ith, int nth, void* data) {
    const Node& node = *static_cast<const Node*>(data);
    const RecurrentPlan& plan = **node.plan;
    const Recurrence& recurrence = *node.recurrence;
    float* scratch = const_cast<float*>(node.all->scratch_[static_cast<size_t>(ith)].data());
    switch (recurrence.shape.kind) {
        case RecurrenceKind::convolution:
            run_convolution(plan, recurrence, convolution_tensors(dst), ith, nth);
            break;
        case RecurrenceKind::diagonal:
            run_diagonal(plan, recurrence, diagonal_tensors(dst), scratch, ith, nth);
            break;
        case RecurrenceKind::delta:
            run_delta(plan, recurrence, delta_tensors(dst), scratch, ith, nth);
            break;
        case RecurrenceKind::linear:
            run_linear(plan, recurrence, linear_tensors(dst), scratch, ith, nth);
            break;
        case RecurrenceKind::wkv7:
            run_wkv7(plan, recurrence, wkv7_tensors(dst), scratch, ith, nth);
            break;
    }
    if (ith == 0) {
        float* rest = static_cast<float*>(dst->data) + plan.n_tokens * dst->ne[0];
        std::fill_n(rest, (dst->ne[1] - plan.n_tokens) * dst->ne[0], 0.0f);
    }
}

}  // namespace hw
