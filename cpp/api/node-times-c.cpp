// The C boundary of what nodes of a pass take.
#include <algorithm>

#include "api/guard.h"
#include "api/handles.h"

using hw::answer;
using hw::of;

extern "C" {

bool hw_cache_time_nodes(hw_cache* cache, bool on) {
    return answer(false, [&] {
        of(cache).time_nodes(on);
        return on;
    });
}

int32_t hw_cache_node_times(hw_cache* cache, hw_node_time* rows, int32_t max) {
    return answer(-1, [&] {
        hw::check_room(rows, max);
        const std::vector<hw_node_time> times = of(cache).node_times();
        const size_t n = std::min(times.size(), static_cast<size_t>(std::max(max, 0)));
        std::copy_n(times.begin(), n, rows);
        return static_cast<int32_t>(times.size());
    });
}

}  // extern "C"
