// Storage of keys and values: one pair of tensors a layer, in the memory of the layer's device.
//
// The cells of one head lie side by side ([d, n_cells, Hkv], d fastest): attention reads each head's keys in one
// stream, and a run of cells is a plain view for every backend.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "ggml-cpp.h"
#include "model/layer-spec.h"

namespace hw {

struct KvTensors {
    ggml_tensor* k;  // [d_k, n_cells, Hkv]
    ggml_tensor* v;  // [d_v, n_cells, Hkv]; with MLA a view of k
    // What both are multiplied by, F32 [n, n]; NULL: stored as they are (see cache/hadamard.h).
    ggml_tensor* hadamard_k = nullptr;
    ggml_tensor* hadamard_v = nullptr;
    // Numbers beyond are stored as this one. Attention by ggml multiplies cells that a query does not see by zero, or
    // adds -inf to their scores, which an infinity or a NaN would survive: one of a block, even a freed one, must not
    // reach another.
    float limit_k = 0.0f;
    float limit_v = 0.0f;
    size_t space = 0;  // see LayerSpec

    bool has_values() const { return v->view_src == nullptr || v->op == GGML_OP_SET_ROWS; }
};

using KvBytes = std::map<ggml_backend_buffer_type_t, size_t>;

class KvStore {
  public:
    // n_cells: of each space. Throws HW_ERROR_MEMORY, and HW_ERROR_UNSUPPORTED if a head does not fit the type's
    // blocks.
    KvStore(const std::map<int, LayerSpec>& layers, const std::vector<int64_t>& n_cells, ggml_type type_k,
            ggml_type type_v);
    // What such a store would take of each kind of memory. Throws HW_ERROR_UNSUPPORTED.
    static KvBytes bytes_for(const std::map<int, LayerSpec>& layers, const std::vector<int64_t>& n_cells,
                             ggml_type type_k, ggml_type type_v);

    const KvTensors& layer(int index) const { return tensors_.at(index); }
    const std::map<int, KvTensors>& layers() const { return tensors_; }
    std::map<int, KvTensors> layers_of(size_t space) const;
    size_t n_bytes() const;

  private:
    KvStore() = default;
    void make_tensors(const std::map<int, LayerSpec>& layers, const std::vector<int64_t>& n_cells, ggml_type type_k,
                      ggml_type type_v);
    ggml_tensor* new_hadamard(ggml_context* ctx, int64_t n);
    void allocate(ggml_backend_buffer_type_t type);
    void fill_hadamards() const;
    std::map<ggml_backend_buffer_type_t, ggml_context_ptr> contexts_;
    std::vector<ggml_backend_buffer_ptr> buffers_;
    std::map<int, KvTensors> tensors_;
    std::map<std::pair<ggml_context*, int64_t>, ggml_tensor*> hadamards_;  // by the context of a device, and size
};

// Bytes of such memory that can still be had; SIZE_MAX: nothing here tells.
size_t free_memory(ggml_backend_buffer_type_t type);
// Whether our CPU kernel can read this memory.
bool is_host_memory(ggml_backend_buffer_type_t type);
// Whether the cells of a layer hold anything until they are cleared: memory that nobody touches costs nothing.
bool is_lazy(const KvTensors& layer);
// x F32 as it may be stored: nothing beyond the limit, no NaN. Contiguous.
ggml_tensor* within_limit(ggml_context* ctx, ggml_tensor* x, float limit);
// The first d_v numbers of each key, as [d_v, n_cells, Hkv].
ggml_tensor* values_in_keys(ggml_context* ctx, ggml_tensor* k, int64_t d_v);
// n cells of K or V from cell `begin` on, as [d, n, Hkv].
ggml_tensor* cells_of(ggml_context* ctx, ggml_tensor* store, int64_t begin, int64_t n);

}  // namespace hw
