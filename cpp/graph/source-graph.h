// The graph that llama.cpp builds for a model, read but never run: where it attends, what it stores, what it is fed.
// Nothing here knows an architecture by name; what cannot be read is refused by its name in the graph.
//
// Pointers to its nodes are for the re-wiring alone: they may be gone with the next graph. What lasts is the ModelSpec.
#pragma once

#include <list>
#include <map>
#include <unordered_set>

#include "base/error.h"
#include "graph/attention-nodes.h"
#include "graph/kept-graph.h"
#include "graph/recurrence-sites.h"
#include "model/layer-spec.h"
#include "model/model.h"

namespace hw {

// One FLASH_ATTN_EXT node, of llama.cpp's graph or one that stands for several nodes of it (graph/attention-nodes.h).
struct AttentionSite {
    const ggml_tensor* node;  // src: q [d_k, T, H], k [d_k, n, Hkv], v [d_v, n, Hkv], mask, sinks; result [d_v, H, T]
    AttentionSpec spec;
    // The rotation of the query, and whether only reshapes stand between it and the attention. NULL: not rotated.
    const ggml_tensor* rope;
    bool is_plain_rope;
    bool is_v_in_k;
};

// What llama.cpp does to a key after its rotation, up to where it is stored:
//
//   ROPE -> RMS_NORM -> MUL by a gain -> CONCAT behind numbers that are not rotated -> SET_ROWS
struct KeyChain {
    const ggml_tensor* rope = nullptr;  // NULL: keys are not rotated
    const ggml_tensor* gain = nullptr;  // MUL, by F32 [d_k]; NULL: none
    int64_t offset = 0;                 // of the first rotated dimension, in the key that is stored
};

// A SET_ROWS node that writes keys or values.
struct KvRows {
    int layer;
    const ggml_tensor* rows;  // [d * Hkv, T]
};

struct SourceGraph {
    KeptGraph kept;
    ggml_cgraph* graph;  // of it
    AttentionNodes attention;
    std::map<const ggml_tensor*, AttentionSite> sites;  // by the node whose place the result takes
    std::map<const ggml_tensor*, KvRows> key_stores;    // by SET_ROWS node
    std::map<const ggml_tensor*, KvRows> value_stores;  // by SET_ROWS node
    StateLeaves states;                                 // of recurrent layers, where llama.cpp has them
    RecurrenceSites recurrences;
    std::map<int, KeyChain> key_chains;                   // by layer
    std::unordered_set<const ggml_tensor*> key_gains;     // of the chains: nodes that are left out
    std::unordered_set<const ggml_tensor*> rope_results;  // nodes computed from a ROPE, up to the next attention
    const ggml_tensor* logits;                            // [n_vocab, n_outputs], or [n_vocab, T]: see below
    // Whether it computes the outputs alone. Some graphs do not: their logits are those of all tokens.
    bool reads_out_ids;
};

// Has graphs built through a llama_context that exists only for this: its own KV cache is as small as llama.cpp allows.
// Each size is asked for once, for that takes as long as many passes: llama.cpp allocates what it would compute with.
class GraphSource {
  public:
    // n_ctx: of our cache; some models rotate otherwise in a long one. Throws HW_ERROR_UNSUPPORTED, HW_ERROR_MEMORY.
    GraphSource(ModelPtr model, int32_t n_ctx);
    // Of the model; it lives as long.
    const ModelSpec& spec() const { return *spec_; }
    // Valid until the next call. Throws HW_ERROR_UNSUPPORTED, HW_ERROR_MEMORY.
    const SourceGraph& of(int32_t n_tokens, int32_t n_outputs);
    // How many graphs llama.cpp was asked for.
    int64_t n_asked() const { return n_asked_; }
    // Gives the memory of the graphs back.
    void forget() { known_.clear(); }
    // What make() returns; the model that cannot be read, or re-wired, is named in its error.
    template <typename Make>
    auto named(const Make& make) const {
        try {
            return make();
        } catch (const Error& error) {
            if (error.status() != HW_ERROR_UNSUPPORTED) {
                throw;
            }
            fail(HW_ERROR_UNSUPPORTED, "architecture '%s': %s", model_->architecture().c_str(), error.what());
        }
    }

  private:
    struct Known {
        int32_t n_tokens;
        int32_t n_outputs;
        SourceGraph graph;
    };

    SourceGraph read(int32_t n_tokens, int32_t n_outputs);
    ModelSpec read_spec();

    ModelPtr model_;
    llama_context_ptr context_;
    ggml_tensor* long_factors_ = nullptr;  // frequency factors to use instead of those of the small context
    const ModelSpec* spec_ = nullptr;
    std::list<Known> known_;  // the last used one first
    int64_t n_asked_ = 0;
};

}  // namespace hw
