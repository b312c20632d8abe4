// The mirrors of earlier passes that are still true: free cells that hold the keys and values of a block's, the keys
// turned on. Values do not depend on where a block stands, so they are copied once; keys only where they are turned
// otherwise than they were.
//
// A mirror is known by cells alone, whatever blocks are called: whoever writes to cells says so before (overwritten),
// and what was copied of them, or to them, counts no more. So freeing, splitting, truncating and moving blocks need no
// care here.
#pragma once

#include <cstdint>
#include <vector>

#include "cache/pass.h"

namespace hw {

// Cells [to, to + n) are copies of [from, from + n), their keys turned on by `turn` positions.
struct KeptMirror {
    int64_t from;
    int64_t to;
    int64_t n;
    int64_t room;  // cells from `to` on that were meant for it
    int32_t turn;
};

// Of a block that the pass sees.
bool is_mirror_of(const KeptMirror& mirror, const Pass& pass);

class KeptMirrors {
  public:
    const std::vector<KeptMirror>& all() const { return mirrors_; }
    // To be called before cells are written.
    void overwritten(int64_t begin, int64_t n);
    // The cells that the tokens of a pass go to. To be called before it gets its flash plan.
    void tokens_overwritten(const Pass& pass);
    // Before a pass is computed, the cells that its mirrors go to; and afterwards they take the place of others of the
    // same blocks.
    void before(const FlashPlan& plan, const Pass& pass);
    void after(const FlashPlan& plan, const Pass& pass, const BlockTable& table);

  private:
    std::vector<KeptMirror> mirrors_;
};

}  // namespace hw
