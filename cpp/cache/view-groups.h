// Which views of a pass have to do with each other.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "hogwild.h"

namespace hw {

// The views, by index, in groups that share no block; each group's in the order given. is_seen: whether a block has any
// token in this pass. The group with the fewest tokens comes first, of equal ones that with the oldest block: an order
// that stays from pass to pass, whoever asks first, so that graphs serve again.
std::vector<std::vector<int32_t>> group_views(const hw_view* views, int32_t n_views,
                                              const std::function<bool(int32_t)>& is_seen);

}  // namespace hw
