#include "cache/layer-cells.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

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

void write_store(ggml_tensor* store, int64_t begin, int64_t n, const std::byte* data, int64_t n_data) {
    ggml_backend_tensor_set_2d(store, data + head_bytes(store, n_data - n), offset_of(store, begin),
                               head_bytes(store, n), static_cast<size_t>(store->ne[2]), store->nb[2],
                               head_bytes(store, n_data));
}

void clear_store(ggml_tensor* store, int64_t begin, int64_t n) {
    for (int64_t head = 0; head < store->ne[2]; head++) {
        const size_t offset = static_cast<size_t>(head) * store->nb[2] + offset_of(store, begin);
        ggml_backend_tensor_memset(store, 0, offset, head_bytes(store, n));
    }
}

bool is_within(const ggml_tensor* store, int64_t n, const std::byte* data, float limit) {
    const ggml_to_float_t to_float = ggml_get_type_traits(store->type)->to_float;
    std::vector<float> row(static_cast<size_t>(store->ne[0]));
    for (int64_t i = 0; i < n * store->ne[2]; i++, data += store->nb[1]) {
        if (to_float == nullptr) {  // F32
            std::memcpy(row.data(), data, row.size() * sizeof(float));
        } else {
            to_float(data, row.data(), store->ne[0]);
        }
        // A rotation makes a number of a pair larger, by sqrt(2) at most.
        if (!std::all_of(row.begin(), row.end(), [&](float x) { return std::fabs(x) <= 2 * limit; })) {
            return false;
        }
    }
    return true;
}

}  // namespace

size_t layer_bytes(const KvTensors& layer, int64_t n) {
    return store_bytes(layer.k, n) + (layer.has_values() ? store_bytes(layer.v, n) : 0);
}

void clear_layer(const KvTensors& layer, int64_t begin, int64_t n) {
    clear_store(layer.k, begin, n);
    if (layer.has_values()) {
        clear_store(layer.v, begin, n);
    }
}

void read_layer(const KvTensors& layer, int64_t begin, int64_t n, std::byte* data) {
    read_store(layer.k, begin, n, data);
    if (layer.has_values()) {
        read_store(layer.v, begin, n, data + store_bytes(layer.k, n));
    }
}

void write_layer(const KvTensors& layer, int64_t begin, int64_t n, const std::byte* data, int64_t n_data) {
    write_store(layer.k, begin, n, data, n_data);
    if (layer.has_values()) {
        write_store(layer.v, begin, n, data + store_bytes(layer.k, n_data), n_data);
    }
}

bool can_be_stored(const KvTensors& layer, int64_t n, const std::byte* data) {
    return is_within(layer.k, n, data, layer.limit_k) &&
           (!layer.has_values() || is_within(layer.v, n, data + store_bytes(layer.k, n), layer.limit_v));
}

}  // namespace hw
