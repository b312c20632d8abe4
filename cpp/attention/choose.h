// Which form of attention computes what. Decided here and nowhere else:
//
//   wanted      a layer in CPU memory    a layer elsewhere
//   auto        fused                    flash or composed
//   fused       fused                    refused
//   ggml        flash or composed        flash or composed
//   composed    composed                 composed
//
// Flash or composed: flash where every device in question has it, in those passes in which it is possible and faster
// (attention/flash-plan.h).
#pragma once

#include <set>

#include "attention/flash-plan.h"
#include "cache/kv-store.h"
#include "hogwild.h"

namespace hw {

enum class AttentionForm { fused, flash, composed };

class AttentionChoice {
  public:
    // Throws HW_ERROR_ARGUMENT where fused attention is wanted, and a layer lies elsewhere.
    AttentionChoice(const ModelSpec& spec, hw_attention wanted, ggml_type type_k);

    // Whether ggml's operations are wanted also where our kernels could compute: then states of recurrent layers too.
    bool wants_ggml() const { return wants_ggml_; }
    // Whether flash attention is wanted of some layer.
    bool may_flash() const { return may_flash_; }
    // What a store must have beside the cells of blocks: free ones for mirrors; and in all a number of cells so that a
    // run that flash attention reads does not end behind the last.
    bool may_mirror() const { return may_flash_ && rules_.keys_are_turned && rules_.may_mirror; }
    int64_t padded(int64_t n_cells) const { return may_flash_ ? GGML_PAD(n_cells, flash_step) : n_cells; }
    // Asks the devices whether they have flash attention. Until then, none has.
    void ask_devices(const ModelSpec& spec, const KvStore& store);

    bool is_fused(int layer) const { return fused_layers_.count(layer) != 0; }
    // nullopt: layers that are not fused are composed in this pass.
    std::optional<FlashPlan> flash_plan(const Pass& pass, const BlockTable& table, const KeptMirrors& kept) const;
    // The pass has its flash plan already.
    AttentionForm form(int layer, const Pass& pass) const;

  private:
    std::set<int> fused_layers_;
    FlashRules rules_;
    bool wants_ggml_;
    bool may_flash_;          // wanted of some layer
    bool has_flash_ = false;  // and its device has it
};

}  // namespace hw
