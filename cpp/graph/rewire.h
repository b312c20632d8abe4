// Re-wires llama.cpp's graph: copies it into a context of our own, stores keys and values in our KvStore, and puts
// attention, and recurrences, of another's making in the place of llama.cpp's.
//
//   attention (its forms)         builds one site of what it is given below, and knows nothing of the copy's making
//     ^ SiteInputs
//   Rewire                        finds sites and stores, in the order of the graph
//     Query    GraphCopy          the query of a site at any position; the copy, node by node
//          SourceGraph            llama.cpp's graph, read
#pragma once

#include <functional>
#include <map>
#include <set>
#include <vector>

#include "cache/kv-store.h"
#include "graph/graph-copy.h"
#include "graph/query.h"

namespace hw {

// What the attention of one site is built from.
struct SiteInputs {
    ggml_context* ctx;
    int n_pos_per_token;
    const AttentionSite& site;
    const LayerSpec& layer;
    Query& query;
    KvTensors stored;    // of the layer, those of this pass included
    ggml_tensor* sinks;  // F32 [H]; NULL: none
};

// -> the result that takes the place of site.node: F32 [d_v, H, T], contiguous.
using BuildAttention = std::function<ggml_tensor*(const SiteInputs&)>;

// -> the result that takes the place of a recurrence's node. sources: copies of RecurrenceSite::sources.
using BuildRecurrence =
    std::function<ggml_tensor*(ggml_context*, const RecurrenceSite& site, const std::vector<ggml_tensor*>& sources)>;

// -> the result that takes the place of a product with weights; NULL: it stays as it is. x: the copy of its rows.
using BuildProduct = std::function<ggml_tensor*(ggml_context*, const ggml_tensor* node, ggml_tensor* x)>;

// What is put in the place of llama.cpp's nodes.
struct Builders {
    BuildAttention attention;
    BuildRecurrence recurrence;
    BuildProduct product;
};

// A node that writes keys or values to the cells of a layer.
struct StoreNode {
    int layer;
    const ggml_tensor* node;
    bool is_late;  // the layer was attended to before
};

class Rewire {
  public:
    Rewire(const SourceGraph& source, const ModelSpec& spec, const KvStore& store, ggml_context* ctx, int32_t n_tokens,
           int32_t n_outputs);

    // Throws HW_ERROR_UNSUPPORTED for an input that is not known. Returns the logits [n_vocab, n_outputs].
    ggml_tensor* run(ggml_cgraph* graph, const Builders& build);

    const GraphInputs& inputs() const { return copy_.inputs(); }
    const std::vector<StoreNode>& stores() const { return stores_; }

  private:
    void store_keys(ggml_cgraph* graph, const ggml_tensor* node, const KvRows& rows);
    void store_values(ggml_cgraph* graph, const ggml_tensor* node, const KvRows& rows);
    ggml_tensor* store_rows(const ggml_tensor* node, const KvRows& source, ggml_tensor* cells, ggml_tensor* matrix,
                            float limit);
    void attend(ggml_cgraph* graph, const ggml_tensor* node, const AttentionSite& site, const BuildAttention& build);
    void recur(ggml_cgraph* graph, const ggml_tensor* node, const RecurrenceSite& site, const BuildRecurrence& build);
    void multiply(const ggml_tensor* node, const BuildProduct& build);
    void note_store(int layer, const ggml_tensor* node);
    KvTensors stored_at(const AttentionSite& site);
    void check_in_place_nodes() const;

    const SourceGraph& source_;
    const ModelSpec& spec_;
    const KvStore& store_;
    GraphCopy copy_;
    std::map<int, KvTensors> stored_;  // by layer: the results of storing, so that reading depends on writing
    std::vector<StoreNode> stores_;    // in the order of the graph
    std::set<int> attended_;           // layers
};

}  // namespace hw
