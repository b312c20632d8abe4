// A run of cells of one layer as bytes, and back: keys, then values, each head after head, a head's rows side by side.
//
//   keys    [Hkv, n, row of d_k numbers of the cache's type]
//   values  [Hkv, n, row of d_v numbers]; none where they are part of the keys (MLA)
//
// As they are stored: keys rotated to origin + l, quantized ones multiplied by a Hadamard matrix.
#pragma once

#include <cstddef>

#include "cache/kv-store.h"

namespace hw {

size_t layer_bytes(const KvTensors& layer, int64_t n);
// Of a layer in the CPU's memory: fills cells with zeros.
void clear_layer(const KvTensors& layer, int64_t begin, int64_t n);
// data: layer_bytes(layer, n).
void read_layer(const KvTensors& layer, int64_t begin, int64_t n, std::byte* data);
// The last n cells of data, which has n_data.
void write_layer(const KvTensors& layer, int64_t begin, int64_t n, const std::byte* data, int64_t n_data);
// Whether a cache could have stored these: no infinity, no NaN, nothing beyond the layer's limits.
bool can_be_stored(const KvTensors& layer, int64_t n, const std::byte* data);

}  // namespace hw
