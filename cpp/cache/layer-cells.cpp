#include "cache/layer-cells.h"

namespace hw {

namespace {

// Bytes of n cells of one head.
size_t head_bytes(const ggml_tensor* store, int64_t n) { return static_cast<size_t>(n) * store->nb[1]; }

size_t store_bytes(const ggml_tensor* store, int64_t n) {
    return static_cast<size_t>(store->ne[2]) * head_bytes(store, n);
}

size_t offset_of(const ggml_tensor* store, int64_t begin) { return static_cast<size_t>(begin) * store->nb[1]; }

void read_store(const ggml_tensor* store, int64_t begin, int64_t n, std::byte* data) {
    const size_t n_bytes = head_bytes(store, n);
    ggml_backend_tensor_get_2d(store, data, offset_of(store, begin), n_bytes, static_cast<size_t>(store->ne[2]),
                               store->nb[2], n_bytes);
}

void write_store(ggml_tensor* store, int64_t begin, int64_t n, const std::byte* data) {
    const size_t n_bytes = head_bytes(store, n);
    ggml_backend_tensor_set_2d(store, data, offset_of(store, begin), n_bytes, static_cast<size_t>(store->ne[2]),
                               store->nb[2], n_bytes);
}

}  // namespace

size_t layer_bytes(const KvTensors& layer, int64_t n) {
    return store_bytes(layer.k, n) + (layer.has_values() ? store_bytes(layer.v, n) : 0);
}

void read_layer(const KvTensors& layer, int64_t begin, int64_t n, std::byte* data) {
    read_store(layer.k, begin, n, data);
    if (layer.has_values()) {
        read_store(layer.v, begin, n, data + store_bytes(layer.k, n));
    }
}

void write_layer(const KvTensors& layer, int64_t begin, int64_t n, const std::byte* data) {
    write_store(layer.k, begin, n, data);
    if (layer.has_values()) {
        write_store(layer.v, begin, n, data + store_bytes(layer.k, n));
    }
}

}  // namespace hw
