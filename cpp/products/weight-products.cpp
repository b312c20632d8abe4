#include "products/weight-products.h"

#include <algorithm>
#include <optional>

#include "products/weight-matrix.h"

namespace hw {

namespace {

// Weights that are read at once, about. Small enough that nobody waits long for the last part, large enough to be worth
// the asking.
constexpr int64_t part_bytes = 32 << 10;

// A row of numbers side by side for each token.
bool is_rows(const ggml_tensor* x) {
    return x->type == GGML_TYPE_F32 && x->nb[0] == sizeof(float) && x->ne[2] == 1 && x->ne[3] == 1;
}

std::optional<Weights> weights_of(const ggml_tensor* node) {
    const ggml_tensor* weights = node->src[0];
    const std::optional<WeightKind> kind = kind_of(weights->type);
    if (node->op != GGML_OP_MUL_MAT || !kind || !lies_as_read(weights, *kind) || !is_layout_known(weights->type) ||
        weights->data == nullptr || ggml_n_dims(weights) > 2 || !is_rows(node->src[1])) {
        return std::nullopt;
    }
    return Weights{*kind, weights->data, weights->ne[0], weights->ne[1]};
}

}  // namespace

ggml_tensor* WeightProducts::build(ggml_context* ctx, const ggml_tensor* node, ggml_tensor* x) {
    const std::optional<Weights> weights = weights_of(node);
    if (!weights || !is_rows(x) || x->ne[1] >= limit_of(*weights)) {
        return nullptr;
    }
    nodes_.push_back(std::make_unique<Node>(*weights, n_threads_));
    ggml_tensor* rows = quantized(ctx, *nodes_.back(), x);
    return ggml_custom_4d(ctx, GGML_TYPE_F32, weights->n_out, x->ne[1], 1, 1, &rows, 1, multiply, GGML_N_TASKS_MAX,
                          nodes_.back().get());
}

int64_t WeightProducts::limit_of(const Weights& weights) const {
    constexpr int64_t none = INT64_MAX;
    if (weights.kind == WeightKind::q6_k) {
        return has_devices_ ? 32 : none;  // from there on ggml gives weights that are not repacked to a device
    }
    return repacked_limit() > 0 ? repacked_limit() : none;
}

ggml_tensor* WeightProducts::quantized(ggml_context* ctx, const Node& node, ggml_tensor* x) {
    ggml_tensor*& rows = quantized_[{x, node.weights.kind}];
    if (rows == nullptr) {
        const auto n_bytes = static_cast<int64_t>(quantized_bytes(node.weights.kind, x->ne[0]));
        rows = ggml_custom_4d(ctx, GGML_TYPE_I8, n_bytes, x->ne[1], 1, 1, &x, 1, quantize, GGML_N_TASKS_MAX,
                              const_cast<Node*>(&node));
    }
    return rows;
}

void WeightProducts::quantize(ggml_tensor* dst, int ith, int nth, void* data) {
    const Weights& weights = static_cast<const Node*>(data)->weights;
    const ggml_tensor* x = dst->src[0];
    for (int64_t row = ith; row < dst->ne[1]; row += nth) {
        const auto at = static_cast<size_t>(row);
        const char* numbers = static_cast<const char*>(x->data) + at * x->nb[1];
        quantize_row(*product_kernel(), weights.kind, reinterpret_cast<const float*>(numbers), weights.n_in,
                     static_cast<std::byte*>(dst->data) + at * dst->nb[1]);
    }
}

// Each thread goes through a share of its own, in order, as memory likes it; then it helps the others with theirs. Who
// leaves last makes the node ready for its next run.
void WeightProducts::multiply(ggml_tensor* dst, int ith, int nth, void* data) {
    Node& node = *static_cast<Node*>(data);
    const ggml_tensor* rows = dst->src[0];
    const int64_t n = n_groups(node.weights);
    const int64_t group_bytes = node.weights.n_in * 4;                                 // 8 outputs of 4 bits
    const int64_t n_at_once = std::max<int64_t>(2, part_bytes / group_bytes / 2 * 2);  // kernels take two together
    for (int i = 0; i < nth; i++) {
        const int owner = (ith + i) % nth;
        const int64_t end = n * (owner + 1) / nth;
        std::atomic<int64_t>& n_taken = node.shares[static_cast<size_t>(owner)].n_taken;
        for (;;) {
            const int64_t first = n * owner / nth + n_taken.fetch_add(n_at_once);
            if (first >= end) {
                break;
            }
            product_kernel()->multiply(node.weights, static_cast<const std::byte*>(rows->data), rows->ne[1], first,
                                       std::min(n_at_once, end - first), static_cast<float*>(dst->data));
        }
    }
    if (node.n_left.fetch_add(1) == nth - 1) {
        for (Share& share : node.shares) {
            share.n_taken.store(0);
        }
        node.n_left.store(0);
    }
}

}  // namespace hw
