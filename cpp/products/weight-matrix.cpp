#include "products/weight-matrix.h"

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/log.h"
#include "model/devices.h"
#include "model/ggml-context.h"

namespace hw {

namespace {

constexpr const char* repacking = "CPU_REPACK";

ggml_backend_dev_t cpu_device() { return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU); }

template <class F>
F cpu_function(const char* name) {
    return reinterpret_cast<F>(ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu_device()), name));
}

ggml_backend_buffer_type_t repacked_memory() {
    const auto extra = cpu_function<ggml_backend_dev_get_extra_bufts_t>("ggml_backend_dev_get_extra_bufts");
    ggml_backend_buffer_type_t* types = extra != nullptr ? extra(cpu_device()) : nullptr;
    for (; types != nullptr && *types != nullptr; types++) {
        if (std::strcmp(ggml_backend_buft_name(*types), repacking) == 0) {
            return *types;
        }
    }
    return nullptr;
}

// Where weights of a kind lie on the CPU; NULL: ggml repacks none of them.
ggml_backend_buffer_type_t memory_of(WeightKind kind) {
    return kind == WeightKind::q6_k ? ggml_backend_dev_buffer_type(cpu_device()) : repacked_memory();
}

// Rows of numbers that are all different, in an order without a pattern.
std::vector<float> numbers(int64_t n) {
    std::vector<float> all(static_cast<size_t>(n));
    for (size_t i = 0; i < all.size(); i++) {
        all[i] = static_cast<float>(i * 2654435761U % 8191) / 8191.0f - 0.5f;
    }
    return all;
}

bool agree(const std::vector<float>& a, const std::vector<float>& b) {
    double largest = 0.0;
    double difference = 0.0;
    for (size_t i = 0; i < a.size(); i++) {
        largest = std::max(largest, std::abs(static_cast<double>(a[i])));
        difference = std::max(difference, std::abs(static_cast<double>(a[i]) - b[i]));
    }
    return difference <= 1e-5 * largest;  // the same sums of integers; floats may be added in another order
}

// One row and four: ggml has a kernel for each.
bool find_out(ggml_type type) {
    constexpr int64_t n_in = 512;
    constexpr int64_t n_out = 16;
    const ProductKernel* kernel = product_kernel();
    if (kernel == nullptr || memory_of(*kind_of(type)) == nullptr) {
        return false;
    }
    const LogScope quiet;
    const std::vector<float> weights = numbers(n_in * n_out);
    std::vector<char> rows(ggml_row_size(type, n_in) * n_out);
    ggml_quantize_chunk(type, weights.data(), rows.data(), 0, n_out, n_in, nullptr);
    const WeightMatrix matrix(type, n_in, n_out, rows.data());
    const std::vector<float> x = numbers(4 * n_in);
    return agree(matrix.multiply(x.data(), 1), matrix.multiply(*kernel, x.data(), 1)) &&
           agree(matrix.multiply(x.data(), 4), matrix.multiply(*kernel, x.data(), 4));
}

}  // namespace

std::optional<WeightKind> kind_of(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0:
            return WeightKind::q4_0;
        case GGML_TYPE_Q4_K:
            return WeightKind::q4_k;
        case GGML_TYPE_Q6_K:
            return WeightKind::q6_k;
        default:
            return std::nullopt;
    }
}

bool lies_as_read(const ggml_tensor* weights, WeightKind kind) {
    if (kind != WeightKind::q6_k) {
        return is_repacked(weights) && weights->ne[1] % 8 == 0;
    }
    return lies_on_cpu(weights) && !is_repacked(weights) && ggml_backend_buffer_is_host(weights->buffer);
}

bool lies_on_cpu(const ggml_tensor* weights) {
    if (weights->buffer == nullptr) {
        return false;
    }
    ggml_backend_dev_t device = device_of(weights);
    return device == nullptr || ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
}

bool is_repacked(const ggml_tensor* weights) {
    return weights->buffer != nullptr &&
           std::strcmp(ggml_backend_buft_name(ggml_backend_buffer_get_type(weights->buffer)), repacking) == 0;
}

WeightMatrix::WeightMatrix(ggml_type type, int64_t n_in, int64_t n_out, const void* rows)
    : backend_(ggml_backend_dev_init(cpu_device(), nullptr)), ctx_(new_context(1)) {
    const std::optional<WeightKind> kind = kind_of(type);
    ggml_backend_buffer_type_t memory = kind ? memory_of(*kind) : nullptr;
    if (memory == nullptr || backend_ == nullptr) {
        fail(HW_ERROR_UNSUPPORTED, "ggml repacks no weights of type %d on this CPU", static_cast<int>(type));
    }
    if (const auto set_n_threads = cpu_function<ggml_backend_set_n_threads_t>("ggml_backend_set_n_threads")) {
        set_n_threads(backend_.get(), 1);
    }
    weights_ = ggml_new_tensor_2d(ctx_.get(), type, n_in, n_out);
    buffer_.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx_.get(), memory));
    if (buffer_ == nullptr) {
        fail(HW_ERROR_MEMORY, "no memory for weights [%d, %d]", static_cast<int>(n_in), static_cast<int>(n_out));
    }
    ggml_backend_buffer_set_usage(buffer_.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    ggml_backend_tensor_set(weights_, rows, 0, ggml_row_size(type, n_in) * static_cast<size_t>(n_out));
}

std::vector<float> WeightMatrix::multiply(const float* x, int64_t n_rows) const {
    constexpr size_t n_tensors = 4;
    const ggml_context_ptr ctx = new_context(n_tensors, n_tensors);
    ggml_tensor* rows = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, weights_->ne[0], n_rows);
    ggml_tensor* product = ggml_mul_mat(ctx.get(), weights_, rows);
    ggml_cgraph* graph = ggml_new_graph_custom(ctx.get(), n_tensors, false);
    ggml_build_forward_expand(graph, product);
    const ggml_backend_buffer_ptr memory(ggml_backend_alloc_ctx_tensors(ctx.get(), backend_.get()));
    if (memory == nullptr) {
        fail(HW_ERROR_MEMORY, "no memory for a product");
    }
    ggml_backend_tensor_set(rows, x, 0, ggml_nbytes(rows));
    std::vector<float> result(static_cast<size_t>(ggml_nelements(product)));
    if (ggml_backend_graph_compute(backend_.get(), graph) != GGML_STATUS_SUCCESS) {
        fail(HW_ERROR_COMPUTE, "ggml could not multiply");
    }
    ggml_backend_tensor_get(product, result.data(), 0, ggml_nbytes(product));
    return result;
}

std::vector<float> WeightMatrix::multiply(const ProductKernel& kernel, const float* x, int64_t n_rows) const {
    const Weights weights = {*kind_of(weights_->type), weights_->data, weights_->ne[0], weights_->ne[1]};
    const size_t n_bytes = quantized_bytes(weights.kind, weights.n_in);
    std::vector<std::byte> rows(n_bytes * static_cast<size_t>(n_rows));
    for (int64_t row = 0; row < n_rows; row++) {
        quantize_row(kernel, weights.kind, x + row * weights.n_in, weights.n_in,
                     rows.data() + static_cast<size_t>(row) * n_bytes);
    }
    std::vector<float> result(static_cast<size_t>(n_rows * weights.n_out));
    kernel.multiply(weights, rows.data(), n_rows, 0, n_groups(weights), result.data());
    return result;
}

// Each kind when it is asked for first: most models have one or two.
bool is_layout_known(ggml_type type) {
    const std::optional<WeightKind> kind = kind_of(type);
    if (!kind) {
        return false;
    }
    switch (*kind) {
        case WeightKind::q4_0: {
            static const bool q4_0 = find_out(GGML_TYPE_Q4_0);
            return q4_0;
        }
        case WeightKind::q4_k: {
            static const bool q4_k = find_out(GGML_TYPE_Q4_K);
            return q4_k;
        }
        case WeightKind::q6_k:
            break;
    }
    static const bool q6_k = find_out(GGML_TYPE_Q6_K);
    return q6_k;
}

}  // namespace hw
