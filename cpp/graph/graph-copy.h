// The copy of llama.cpp's graph, made node by node as it is asked for: weights are used in place, inputs are replaced
// by ours. What else is replaced (stores and attention) is put in by the re-wiring, see graph/rewire.h.
#pragma once

#include <functional>
#include <unordered_map>
#include <vector>

#include "graph/source-graph.h"

namespace hw {

// Tensors that are filled before each run of a graph of T tokens.
struct GraphInputs {
    ggml_tensor* tokens;              // I32 [T]
    ggml_tensor* positions;           // I32 [T * n_pos_per_token]: of keys, inside their block
    ggml_tensor* view_positions;      // I32 [T * n_pos_per_token]: inside their view
    std::vector<ggml_tensor*> cells;  // of each space: I64 [T], where keys and values are stored
    ggml_tensor* out_ids;             // I32 [n_outputs]
    ggml_tensor* query_scales;        // F32 [1, 1, T]: of a query at its position in its view
};

class GraphCopy {
  public:
    GraphCopy(const SourceGraph& source, ggml_context* ctx, int32_t n_tokens, int32_t n_outputs, int n_pos_per_token,
              size_t n_spaces);

    ggml_context* ctx() const { return ctx_; }
    const GraphInputs& inputs() const { return inputs_; }
    // The copy of a tensor, made now if it was not yet. Throws HW_ERROR_UNSUPPORTED for an input that is not known.
    ggml_tensor* of(const ggml_tensor* tensor);
    // Another copy, with all that follows from a ROPE at other positions.
    ggml_tensor* at(const ggml_tensor* tensor, ggml_tensor* positions);
    // From now on the copy of a tensor.
    void put(const ggml_tensor* tensor, ggml_tensor* copy) { copies_[tensor] = copy; }
    bool has(const ggml_tensor* tensor) const { return copies_.count(tensor) != 0; }

  private:
    using Map = std::unordered_map<const ggml_tensor*, ggml_tensor*>;
    ggml_tensor* leaf(const ggml_tensor* leaf) const;
    ggml_tensor* clone(const ggml_tensor* tensor, const std::function<ggml_tensor*(const ggml_tensor*)>& source_of);
    ggml_tensor* rotated(const ggml_tensor* tensor, ggml_tensor* positions, Map* done);

    const SourceGraph& source_;
    ggml_context* ctx_;
    GraphInputs inputs_;
    Map copies_;
};

}  // namespace hw
