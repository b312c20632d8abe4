// The query of one site, as an attention asks for it.
#pragma once

#include "graph/graph-copy.h"

namespace hw {

// With a gain, llama.cpp's score is <g_q . norm(R(i) q), g_k . norm(R(b + l) k)> for a query at i and key l of a block
// that begins at b. We store R(o + l) norm(k), so the other side is R(o - b) (g_k . g_q . norm(R(i) q)).
class Query {
  public:
    Query(GraphCopy& copy, const AttentionSite& site, const LayerSpec& layer)
        : copy_(copy), site_(site), layer_(layer) {}

    // Before its rotation, [d_k, H, T]. Only where the query is not rotated, or its rope is plain.
    ggml_tensor* raw();
    // [d_k, T, H] (permuted): the same chain of nodes with other positions, see Pass::query_turn.
    ggml_tensor* at(ggml_tensor* positions);
    // [d_k, T, H] (permuted): at its position in the view, for keys that stand at theirs.
    ggml_tensor* in_view();

  private:
    ggml_tensor* with_gain();

    GraphCopy& copy_;
    const AttentionSite& site_;
    const LayerSpec& layer_;
    ggml_tensor* with_gain_ = nullptr;  // [d_k, H, T]
};

}  // namespace hw
