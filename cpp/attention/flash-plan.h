// How ggml's flash attention computes a pass of several blocks: for each group of views that share any, one over one
// run of cells.
//
// Flash attention takes one rotation a query, and gives no sums that could be combined across blocks. So each query
// keeps the position that it has in its view, and reads the blocks that begin there at their origin as they lie. Of any
// other, a mirror is made in free cells: a copy with its keys turned on, read by all tokens in whose view the block
// begins at the same place. A mask hides the rest of the run.
//
//   cell  0                      4000   4200      4260   4456
//         | shared, origin 0      | free | alice   | free | bob    | free ...
//         |                       |^ mirrors: alice as she sees herself, bob as he sees himself
//
// A mirror stays where it is from pass to pass, with room to grow, as long as its cells and those of the block are not
// overwritten (cache/kept-mirrors.h). Then its values are those of the last pass, and only new ones are copied; so are
// its keys, if the block still begins at the same place of the view.
//
// Groups of views that see nothing of each other have runs and mirrors of their own, so that none reads another's
// cells.
//
// Only steps that are not finished are mirrored, mostly: some hundred cells, where a prompt has thousands.
#pragma once

#include "cache/block-table.h"
#include "cache/kept-mirrors.h"
#include "cache/pass.h"
#include "ggml.h"

namespace hw {

// Few sizes, so that graphs serve again; what CUDA's fast kernels ask for, and llama.cpp pads to.
constexpr int64_t flash_step = 256;

struct FlashRules {
    bool keys_are_turned;  // by any layer; else no block needs a mirror
    bool may_mirror;       // not quantized keys: turned, they would be quantized again
    bool has_unturned;  // any layer, values of its own (with MLA they are part of its keys) or keys without positions
};

// nullopt: a mirror is needed and not allowed, or no free run of cells is long enough for a group's mirrors, or they
// would cost more than attention block by block. A run may end behind the table's last cell, never behind the next
// multiple of flash_step.
std::optional<FlashPlan> plan_flash(const Pass& pass, const BlockTable& table, const FlashRules& rules,
                                    const KeptMirrors& kept);

}  // namespace hw
