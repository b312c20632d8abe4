// Copies llama.cpp's graph node by node into a context of our own: weights are used in place, inputs are replaced by
// ours, keys and values are stored in our KvStore, and every attention is built by an Attention.
#pragma once

#include <functional>
#include <string>
#include <unordered_map>

#include "cache/kv-store.h"
#include "cache/pass.h"
#include "graph/source-graph.h"

namespace hw {

// Tensors that are filled before each run of a graph of T tokens.
struct GraphInputs {
    ggml_tensor* tokens;          // I32 [T]
    ggml_tensor* positions;       // I32 [T * n_pos_per_token]: of keys, inside their block
    ggml_tensor* view_positions;  // I32 [T * n_pos_per_token]: inside their view
    ggml_tensor* cells;           // I64 [T]: where keys and values are stored
    ggml_tensor* out_ids;         // I32 [n_outputs]
    ggml_tensor* query_scales;    // F32 [1, 1, T]: of a query at its position in its view
};

class Rewire;

// Builds the attention of a graph, and fills what it is fed.
class Attention {
  public:
    virtual ~Attention() = default;
    // The result that takes the place of site.node: F32 [d_v, H, T], contiguous.
    virtual ggml_tensor* build(Rewire& rewire, const AttentionSite& site, const KvTensors& stored) = 0;
    // Whether what it built can compute the pass.
    virtual bool serves(const Pass& pass) const = 0;
    // Fills what it reads. To be called when the graph is allocated.
    virtual void set_inputs(const Pass& pass, int n_pos_per_token) = 0;
};

class Rewire {
  public:
    using Chooser = std::function<Attention&(const AttentionSite&)>;
    Rewire(const SourceGraph& source, const ModelSpec& spec, const KvStore& store, ggml_context* ctx, int32_t n_tokens,
           int32_t n_outputs);

    // Copies the graph. Throws HW_ERROR_UNSUPPORTED for an input that is not known. Returns the logits [n_vocab,
    // n_outputs].
    ggml_tensor* run(ggml_cgraph* graph, const Chooser& attention_of);

    const GraphInputs& inputs() const { return inputs_; }
    ggml_context* ctx() const { return ctx_; }
    int n_pos_per_token() const { return spec_.n_pos_per_token; }
    const LayerSpec& layer_of(const AttentionSite& site) const { return spec_.layers.at(site.spec.layer); }
    // The copy of a tensor of the source graph, made now if it was not yet.
    ggml_tensor* copy(const ggml_tensor* tensor);
    // The query of a site [d_k, T, H] (permuted), with the same chain of nodes but other positions: Pass::query_turn.
    //
    // With a gain, llama.cpp's score is <g_q . norm(R(i) q), g_k . norm(R(b + l) k)> for a query at i and key l of a
    // block that begins at b. We store R(o + l) norm(k), so the other side is R(o - b) (g_k . g_q . norm(R(i) q)).
    ggml_tensor* rotated_query(const AttentionSite& site, ggml_tensor* positions);
    // The query of a site [d_k, T, H] at its position in the view, for keys that stand at theirs.
    ggml_tensor* query_in_view(const AttentionSite& site);

  private:
    using Map = std::unordered_map<const ggml_tensor*, ggml_tensor*>;
    ggml_tensor* copy_leaf(const ggml_tensor* leaf) const;
    ggml_tensor* clone(const ggml_tensor* tensor, const std::function<ggml_tensor*(const ggml_tensor*)>& source_of);
    ggml_tensor* query_with_gain(const AttentionSite& site);
    ggml_tensor* copy_rotated(const ggml_tensor* tensor, ggml_tensor* positions, Map* done);
    KvTensors stored_at(const AttentionSite& site);
    ggml_tensor* store_rows(const ggml_tensor* node, const KvRows& source, ggml_tensor* cells, ggml_tensor* matrix,
                            float limit);
    void check_in_place_nodes() const;

    const SourceGraph& source_;
    const ModelSpec& spec_;
    const KvStore& store_;
    ggml_context* ctx_;
    GraphInputs inputs_;
    Map copies_;
    Map queries_with_gain_;            // by site, [d_k, H, T]
    std::map<int, KvTensors> stored_;  // by layer: the results of storing, so that reading depends on writing
};

}  // namespace hw
