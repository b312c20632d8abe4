#include "cache/kv-store.h"

#include <algorithm>
#include <cstdint>

#include "base/error.h"
#include "cache/hadamard.h"
#include "model/ggml-context.h"

namespace hw {

namespace {

void check_type(ggml_type type, int64_t d, const char* what) {
    if (d % ggml_blck_size(type) != 0) {
        fail(HW_ERROR_UNSUPPORTED, "%s of type %s need a head size that is a multiple of %d, this model has %d", what,
             ggml_type_name(type), static_cast<int>(ggml_blck_size(type)), static_cast<int>(d));
    }
}

// Scores of float-sized keys must not overflow either. The scale of a quantized block is f16.
float largest(ggml_type type) { return type == GGML_TYPE_F32 || type == GGML_TYPE_BF16 ? 1e15f : 65504.0f; }

}  // namespace

KvStore::KvStore(const std::map<int, LayerSpec>& layers, const std::vector<int64_t>& n_cells, ggml_type type_k,
                 ggml_type type_v) {
    make_tensors(layers, n_cells, type_k, type_v);
    for (const auto& entry : contexts_) {
        allocate(entry.first);
    }
    fill_hadamards();
}

KvBytes KvStore::bytes_for(const std::map<int, LayerSpec>& layers, const std::vector<int64_t>& n_cells,
                           ggml_type type_k, ggml_type type_v) {
    KvStore store;
    store.make_tensors(layers, n_cells, type_k, type_v);
    KvBytes bytes;
    for (const auto& [type, ctx] : store.contexts_) {
        bytes[type] = ggml_backend_alloc_ctx_tensors_from_buft_size(ctx.get(), type);
    }
    return bytes;
}

std::map<int, KvTensors> KvStore::layers_of(size_t space) const {
    std::map<int, KvTensors> layers;
    for (const auto& [index, tensors] : tensors_) {
        if (tensors.space == space) {
            layers[index] = tensors;
        }
    }
    return layers;
}

void KvStore::make_tensors(const std::map<int, LayerSpec>& layers, const std::vector<int64_t>& n_cells,
                           ggml_type type_k, ggml_type type_v) {
    for (const auto& [index, layer] : layers) {
        check_type(type_k, layer.d_k, "keys");
        check_type(layer.is_v_in_k ? type_k : type_v, layer.d_v, "values");
        ggml_context_ptr& ctx = contexts_[layer.buffer_type];
        if (ctx == nullptr) {
            ctx = new_context(4 * layers.size());
        }
        KvTensors& tensors = tensors_[index];
        tensors.space = layer.space();
        const int64_t n = n_cells.at(tensors.space);
        tensors.k = ggml_new_tensor_3d(ctx.get(), type_k, layer.d_k, n, layer.n_head_kv);
        tensors.v = layer.is_v_in_k ? values_in_keys(ctx.get(), tensors.k, layer.d_v)
                                    : ggml_new_tensor_3d(ctx.get(), type_v, layer.d_v, n, layer.n_head_kv);
        ggml_format_name(tensors.k, "cells_k_l%d", index);
        ggml_format_name(tensors.v, "cells_v_l%d", index);
        // llama.cpp's sizes: for keys the largest; values keep to the smallest, which serves them better.
        const int64_t n_k = hadamard_size(type_k, layer.d_k, layer.is_v_in_k ? 64 : layer.d_k);
        const int64_t n_v = layer.is_v_in_k ? n_k : hadamard_size(type_v, layer.d_v, 64);
        tensors.limit_k = largest(type_k);
        tensors.limit_v = largest(type_v);
        tensors.hadamard_k = new_hadamard(ctx.get(), n_k);
        tensors.hadamard_v = new_hadamard(ctx.get(), n_v);
    }
}

ggml_tensor* KvStore::new_hadamard(ggml_context* ctx, int64_t n) {
    if (n == 0) {
        return nullptr;
    }
    ggml_tensor*& matrix = hadamards_[{ctx, n}];
    if (matrix == nullptr) {
        matrix = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n, n);
        ggml_set_name(matrix, "hadamard");
    }
    return matrix;
}

void KvStore::fill_hadamards() const {
    for (const auto& [key, matrix] : hadamards_) {
        const std::vector<float> values = hadamard_values(key.second);
        ggml_backend_tensor_set(matrix, values.data(), 0, values.size() * sizeof(float));
    }
}

void KvStore::allocate(ggml_backend_buffer_type_t type) {
    ggml_context* ctx = contexts_.at(type).get();
    const size_t n_bytes = ggml_backend_alloc_ctx_tensors_from_buft_size(ctx, type);
    ggml_backend_buffer_ptr buffer;
    if (n_bytes <= free_memory(type)) {
        buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx, type));
    }
    if (buffer == nullptr) {
        fail(HW_ERROR_MEMORY, "no memory for %.0f MiB of keys and values on %s: ask for a smaller n_ctx",
             static_cast<double>(n_bytes) / (1 << 20), ggml_backend_buft_name(type));
    }
    // Attention multiplies masked cells by zero: they must not hold a NaN. Those in the CPU's memory are cleared when
    // they are opened (engine/cell-space.h).
    if (!is_host_memory(type)) {
        ggml_backend_buffer_clear(buffer.get(), 0);
    }
    buffers_.push_back(std::move(buffer));
}

size_t KvStore::n_bytes() const {
    size_t sum = 0;
    for (const auto& entry : tensors_) {
        sum += ggml_nbytes(entry.second.k) + (entry.second.has_values() ? ggml_nbytes(entry.second.v) : 0);
    }
    return sum;
}

// ggml calls all of a machine's memory free, but it knows what a GPU that shares it may use.
size_t free_memory(ggml_backend_buffer_type_t type) {
    const size_t host = ggml_backend_buft_is_host(type) ? free_host_memory() : SIZE_MAX;
    size_t free = 0;
    size_t total = 0;
    if (ggml_backend_dev_t device = ggml_backend_buft_get_device(type)) {
        ggml_backend_dev_memory(device, &free, &total);
    }
    return free > 0 ? std::min(free, host) : host;  // 0: the backend does not know
}

// Memory that a GPU shares with the CPU is host memory too, but the layer belongs to the GPU.
bool is_host_memory(ggml_backend_buffer_type_t type) {
    ggml_backend_dev_t device = ggml_backend_buft_get_device(type);
    return ggml_backend_buft_is_host(type) &&
           (device == nullptr || ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU);
}

bool is_lazy(const KvTensors& layer) { return is_host_memory(ggml_backend_buffer_get_type(layer.k->buffer)); }

ggml_tensor* within_limit(ggml_context* ctx, ggml_tensor* x, float limit) {
    return ggml_clamp(ctx, ggml_is_contiguous(x) ? x : ggml_cont(ctx, x), -limit, limit);
}

ggml_tensor* values_in_keys(ggml_context* ctx, ggml_tensor* k, int64_t d_v) {
    return ggml_view_3d(ctx, k, d_v, k->ne[1], k->ne[2], k->nb[1], k->nb[2], 0);
}

ggml_tensor* cells_of(ggml_context* ctx, ggml_tensor* store, int64_t begin, int64_t n) {
    return ggml_view_3d(ctx, store, store->ne[0], n, store->ne[2], store->nb[1], store->nb[2],
                        static_cast<size_t>(begin) * store->nb[1]);
}

}  // namespace hw
