// A re-wired graph with everything it needs to run: its tensors, its inputs and its own scheduler. A graph that was
// allocated keeps its tensors' addresses, so each live graph has a scheduler of its own.
#pragma once

#include <memory>

#include "attention/attention.h"
#include "attention/choose.h"
#include "cache/cell-moves.h"
#include "cache/pass.h"
#include "engine/layer-cuts.h"
#include "engine/node-times.h"
#include "engine/pass-size.h"
#include "model/backends.h"
#include "products/weight-products.h"
#include "recurrence/recurrent-nodes.h"

namespace hw {

class PassGraph {
  public:
    // Throws HW_ERROR_UNSUPPORTED, HW_ERROR_MEMORY.
    // passes: one for each space, as all that follow. recurrent: of the same pass. scratch: where the tokens that fill
    // up the batch go.
    PassGraph(GraphSource& source, const KvStore& store, Backends& backends, const std::vector<Pass>& passes,
              const RecurrentPlan& recurrent, const PassSize& size, std::vector<ScratchCells> scratch,
              const AttentionChoice& choice, int32_t n_threads);

    // Whether this graph can compute a pass of that size.
    bool serves(const std::vector<Pass>& passes, const RecurrentPlan& recurrent, const PassSize& size) const;
    int32_t n_tokens() const { return size_.n_tokens; }
    // Of a layer of each space, for each form of attention in use there, see Attention::n_scores.
    int64_t n_scores(const std::vector<Pass>& passes) const;
    // States of recurrent layers that a run makes by ggml's own operations.
    int64_t n_composed_states() const { return recurrent_.states().n_states(); }
    // hook: what is to happen between the stores of each layer and its attention; NULL: nothing. Throws
    // HW_ERROR_COMPUTE, and what the hook throws. times: what times its nodes, where there is no hook; NULL: nothing.
    // recurrent: of the same pass.
    void run(const std::vector<Pass>& passes, const RecurrentPlan& recurrent, LayerHook* hook = nullptr,
             NodeTimes* times = nullptr);
    // Of the last run, F32 [n_vocab, n_outputs]: a column, as ggml has it, for each of Pass::outputs.
    const ggml_tensor& logits() const { return *logits_; }

  private:
    void build(const SourceGraph& from, const ModelSpec& spec, const KvStore& store, const std::vector<Pass>& passes,
               const AttentionChoice& choice, int32_t n_threads);
    void choose_backends(const Backends& backends, const KvStore& store);
    void set_inputs(const std::vector<Pass>& passes);

    PassSize size_;
    std::vector<ScratchCells> scratch_;
    const ModelSpec& spec_;
    ggml_context_ptr ctx_;
    ggml_backend_sched_ptr scheduler_;
    ggml_cgraph* graph_ = nullptr;
    GraphInputs inputs_ = {};
    ggml_tensor* logits_ = nullptr;
    LayerCuts cuts_;
    std::vector<std::map<AttentionForm, std::unique_ptr<Attention>>> attentions_;  // of each space the forms in use
    RecurrentNodes recurrent_;
    WeightProducts products_;
};

}  // namespace hw
