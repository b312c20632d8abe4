// Concurrent attention by our CPU kernel, as one custom node a site. Who sees what is data (the kernel's plan, made
// anew for each pass), so a graph serves every pass of its size.
//
// Query rotation: the kernel rotates the raw query itself, once a (token, block), with a table of cosines and sines
// that one ROPE node makes for all layers, by rotating the unit vectors (1, 0). So whatever ggml's ROPE knows
// (frequency factors, YaRN with its magnitude, M-RoPE) holds. Where more than reshapes stands between ROPE and the
// attention, the whole chain is built once a slot instead, and the kernel gets rotated queries.
#pragma once

#include <memory>
#include <vector>

#include "attention/attention.h"
#include "kernel/kernel.h"

namespace hw {

class FusedAttention : public Attention {
  public:
    FusedAttention(const Pass& pass, int32_t n_tokens, int32_t n_threads);
    ggml_tensor* build(const SiteInputs& site) override;

    bool serves(const Pass& pass) const override;
    int64_t n_scores(const Pass& pass) const override;
    void set_inputs(const Pass& pass, int n_pos_per_token) override;

  private:
    // The plan of all layers of one shape and window. Rotated queries lie at other rows than raw ones.
    struct Plan {
        AttnShape shape;
        bool is_rotated;
        Window window;
        AttnPlan plan;
    };
    // What the node of a site is run with, beside its sources.
    struct Site {
        AttnPlan* plan;
        AttnRope rope;
        float scale, soft_cap, max_bias;
        bool has_sinks;
        int32_t hadamard;
    };
    struct Table {
        RopeParams rope;
        ggml_tensor* unit;    // F32 [n_rot, 1, T * slots]: input, (1, 0) for each pair
        ggml_tensor* angles;  // F32 [n_rot, 1, T * slots]
    };
    static void run(ggml_tensor* dst, int ith, int nth, void* site);

    Plan& plan_for(const AttnShape& shape, bool is_rotated, const Window& window);
    ggml_tensor* angles_for(const SiteInputs& in, const RopeParams& rope);
    ggml_tensor* rotated_queries(const SiteInputs& in);
    void set_turns(const std::vector<int32_t>& by_row, int n_pos_per_token) const;
    void set_units() const;
    void build_plans(const Pass& pass, const std::vector<std::vector<AttnPair>>& of_block) const;

    int32_t n_tokens_;
    int32_t n_threads_;
    int32_t n_slots_;                        // most blocks that a token sees; slot s of token t is its s-th block
    ggml_tensor* table_turns_ = nullptr;     // I32 [T * slots * n_pos_per_token], slot fastest
    std::vector<ggml_tensor*> query_turns_;  // a slot: I32 [T * n_pos_per_token], where queries come rotated
    bool has_gains_ = false;                 // queries have their position in the view already
    std::vector<Table> tables_;
    std::vector<std::unique_ptr<Plan>> plans_;
    std::vector<std::unique_ptr<Site>> sites_;
};

}  // namespace hw
