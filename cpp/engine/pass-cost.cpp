#include "engine/pass-cost.h"

#include <cstring>

#include "ggml.h"

namespace hw {

namespace {

// As multiples of a pass of one row.
struct RowCosts {
    double further;  // a row more
    double four;     // four rows at once; 0: there is no kernel for that
};

// Measured on passes of 1 to 8 tokens of models of 0.6B and 8B, with one and two threads (docs/performance.md). Types
// and CPUs that were not measured have no kernel here, so that they are never given more rows.
RowCosts costs_of(const hw_weight_share& weights, bool has_avx512) {
    if (weights.is_routed) {
        return {1.0, 0.0};  // each row reads experts of its own
    }
    if (weights.is_repacked) {
        switch (weights.type) {
            case GGML_TYPE_Q4_0:
            case GGML_TYPE_IQ4_NL:
                return has_avx512 ? RowCosts{0.58, 1.30} : RowCosts{0.70, 2.20};
            case GGML_TYPE_Q4_K:
                return has_avx512 ? RowCosts{0.37, 1.35} : RowCosts{0.72, 2.08};
            default:
                break;
        }
    }
    return has_avx512 ? RowCosts{0.40, 0.0} : RowCosts{0.60, 0.0};
}

bool cpu_has(const char* feature) {
    ggml_backend_reg_t cpu = ggml_backend_dev_backend_reg(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    const auto features = reinterpret_cast<ggml_backend_get_features_t>(
        ggml_backend_reg_get_proc_address(cpu, "ggml_backend_get_features"));
    if (features == nullptr) {
        return false;
    }
    for (const ggml_backend_feature* entry = features(cpu); entry->name != nullptr; entry++) {
        if (std::strcmp(entry->name, feature) == 0) {
            return true;
        }
    }
    return false;
}

bool is_product_with_weights(const ggml_tensor* node) {
    if (node->op != GGML_OP_MUL_MAT && node->op != GGML_OP_MUL_MAT_ID) {
        return false;
    }
    ggml_backend_buffer_t buffer = node->src[0]->buffer;
    if (buffer == nullptr || ggml_backend_buffer_get_usage(buffer) != GGML_BACKEND_BUFFER_USAGE_WEIGHTS) {
        return false;
    }
    ggml_backend_dev_t device = ggml_backend_buft_get_device(ggml_backend_buffer_get_type(buffer));
    return device == nullptr || ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
}

hw_weight_share share_of(const ggml_tensor* node) {
    const ggml_tensor* weights = node->src[0];
    const bool is_routed = node->op == GGML_OP_MUL_MAT_ID;
    // src[2]: the experts of each token [n_used, T]
    const int64_t used = is_routed ? node->src[2]->ne[0] : 1;
    const int64_t of = is_routed ? weights->ne[2] : 1;
    const char* memory = ggml_backend_buft_name(ggml_backend_buffer_get_type(weights->buffer));
    const double part = static_cast<double>(used) / static_cast<double>(of);
    return {weights->type, std::strcmp(memory, "CPU_REPACK") == 0, is_routed,
            static_cast<double>(ggml_nbytes(weights)) * part, static_cast<double>(ggml_nelements(weights)) * part};
}

}  // namespace

PassCost::PassCost(ggml_cgraph* graph)
    // ARM's kernels of four rows are others, and were not measured.
    : has_avx512_(cpu_has("AVX512")) {
    const bool is_known = cpu_has("AVX2");
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const ggml_tensor* node = ggml_graph_node(graph, i);
        if (is_product_with_weights(node)) {
            weights_.push_back(share_of(node));
            weights_.back().is_repacked = weights_.back().is_repacked && is_known;
        }
    }
}

double PassCost::of(int32_t n) const {
    double sum = 0.0;
    for (const hw_weight_share& share : weights_) {
        const RowCosts costs = costs_of(share, has_avx512_);
        const bool in_fours = costs.four > 0.0 && n >= 4;
        const double rows = in_fours ? costs.four * (n / 4) + costs.further * (n % 4) : 1.0 + costs.further * (n - 1);
        sum += share.n_bytes * rows;
    }
    return sum;
}

}  // namespace hw
