// States of recurrent layers that prompts leave, by ggml's own operations, where the layer lies: on a device that takes
// a fraction of what our CPU kernel takes, and of all the tokens' numbers none is copied. The states alone are, to and
// from host memory, where blocks have them:
//
//   tokens of the pass    r r | p p p p p p p p | r         p: make states (two works), r: the rest
//
//   load, on the CPU -> state -> operation(p p p p) -> state -> operation(p p p p) -> state
//                                   |                   |                             |
//                                outputs             store, on the CPU             store
//   r r r  -> our CPU kernel, behind what it reads: the stores -> outputs
//
// Which tokens make states, and where they are cut, a graph is built for.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "ggml-backend.h"
#include "graph/recurrence-sites.h"
#include "recurrence/state-tokens.h"

namespace hw {

class ComposedStates {
  public:
    // sources of n tokens -> their outputs [numbers, n], by another form.
    using BuildRest = std::function<ggml_tensor*(const std::vector<ggml_tensor*>& sources, int32_t n)>;

    ComposedStates(std::vector<StateTokens> views, int32_t n_tokens) : views_(std::move(views)), n_tokens_(n_tokens) {}

    bool is_needed() const { return !views_.empty(); }
    // What takes the place of a site's node, which one operation computes (RecurrenceSite::state): [numbers, T]. NULL:
    // the device lacks it. sources: as RecurrenceSite::sources. recurrence: of the site; it must outlive this object.
    ggml_tensor* build(ggml_context* ctx, const RecurrenceSite& site, const Recurrence& recurrence,
                       std::vector<ggml_tensor*> sources, ggml_backend_dev_t device, const BuildRest& rest);

    struct Placed {
        ggml_tensor* node;
        ggml_backend_dev_t device;
    };
    // Nodes that belong to a device.
    const std::vector<Placed>& placed() const { return placed_; }
    bool serves(const RecurrentPlan& plan) const { return views_ == state_tokens(plan); }
    // What is computed from now on: a plan that this serves.
    void set_plan(const RecurrentPlan* plan);
    void set_inputs() const;
    // Tokens of the pass that make no states.
    int32_t n_rest() const;
    // States that a run makes, of all sites.
    int64_t n_states() const { return static_cast<int64_t>(nodes_.size() - n_loads_); }

  private:
    // A node that loads or stores a state.
    struct Node {
        const ComposedStates* all;
        const Recurrence* recurrence;
        size_t view;
        int32_t work;
    };
    struct Made;  // of one site, as far as it is built
    static void run_load(ggml_tensor* dst, int ith, int nth, void* node);
    static void run_store(ggml_tensor* dst, int ith, int nth, void* node);
    void build_view(Made* made, size_t view);
    void convolve(Made* made, size_t view);
    ggml_tensor* load(Made* made, size_t view);
    void store(Made* made, size_t view, size_t work, ggml_tensor* state);
    std::vector<ggml_tensor*> rest_of(Made* made) const;
    ggml_tensor* with_rest(Made* made, ggml_tensor* rest) const;

    std::vector<StateTokens> views_;
    int32_t n_tokens_;
    const RecurrentPlan* plan_ = nullptr;
    std::vector<RecurrentView> now_;  // of the plan, those that make states
    std::vector<std::unique_ptr<Node>> nodes_;
    size_t n_loads_ = 0;
    std::vector<Placed> placed_;
    ggml_tensor* ids_ = nullptr;  // of SSM_SCAN: the one sequence that there is
};

}  // namespace hw
