#include "products/weight-products.h"

#include <algorithm>
#include <optional>

#include "products/weight-matrix.h"

namespace hw {

namespace {

// Whoever is done first waits for half a part on average; asking for one takes far less.
constexpr int32_t parts_a_thread = 32;

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
    nodes_.push_back(std::make_unique<Node>(*weights));
    ggml_tensor* rows = quantized(ctx, *nodes_.back(), x);
    return ggml_custom_4d(ctx, GGML_TYPE_F32, weights->n_out, x->ne[1], 1, 1, &rows, 1, multiply, GGML_N_TASKS_MAX,
                          nodes_.back().get());
}

int64_t WeightProducts::limit_of(const Weights& weights) const {
    constexpr int64_t none = INT64_MAX;
    if (weights.kind == WeightKind::q6_k) {
        return has_devices_ ? 32 : none;  // from there on ggml gives weights that are not repacked to a device
    }
    return product_kernel()->repacked_limit > 0 ? product_kernel()->repacked_limit : none;
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
        product_kernel()->quantize(weights.kind, reinterpret_cast<const float*>(numbers), weights.n_in,
                                   static_cast<std::byte*>(dst->data) + at * dst->nb[1]);
    }
}

// Each thread asks once too often: who is the last to do so makes the node ready for its next run.
void WeightProducts::multiply(ggml_tensor* dst, int, int nth, void* data) {
    Node& node = *static_cast<Node*>(data);
    const ggml_tensor* rows = dst->src[0];
    const int64_t n = n_groups(node.weights);
    const auto n_parts = static_cast<int32_t>(std::min<int64_t>(n, nth * parts_a_thread));
    int32_t part = node.next.fetch_add(1);
    for (; part < n_parts; part = node.next.fetch_add(1)) {
        const int64_t first = n * part / n_parts;
        const int64_t last = n * (part + 1) / n_parts;
        product_kernel()->multiply(node.weights, static_cast<const std::byte*>(rows->data), rows->ne[1], first,
                                   last - first, static_cast<float*>(dst->data));
    }
    if (part == n_parts + nth - 1) {
        node.next.store(0);
    }
}

}  // namespace hw
