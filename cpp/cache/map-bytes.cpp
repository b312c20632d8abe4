// What a block's tokens do to states, as bytes: segment by segment, all as maps.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "cache/block-maps.h"

namespace hw {

size_t BlockMaps::n_bytes(int32_t block) const {
    const size_t n = of(block).size();
    return is_used() ? sizeof(uint64_t) * (1 + n) + n * maps_.n_floats() * sizeof(float) : 0;
}

void BlockMaps::read(int32_t block, std::byte* data) const {
    if (!is_used()) {
        return;
    }
    const Segments& segments = of(block);
    const auto put = [&](uint64_t number) {
        std::memcpy(data, &number, sizeof(number));
        data += sizeof(number);
    };
    put(segments.size());
    for (const Segment& segment : segments) {
        put(static_cast<uint64_t>(segment.n_tokens));
    }
    for (const Segment& segment : segments) {
        const Map map = segment.map ? segment.map : as_map({segment}).map;
        std::memcpy(data, map.get(), maps_.n_floats() * sizeof(float));
        data += maps_.n_floats() * sizeof(float);
    }
}

Segments BlockMaps::from_bytes(const std::byte* data, size_t n_bytes, int64_t n_tokens) const {
    const auto damaged = [](const char* how) {
        fail(HW_ERROR_ARGUMENT, "these are no data of a block: its recurrent states %s", how);
    };
    if (!is_used()) {
        return {};
    }
    const size_t map_bytes = maps_.n_floats() * sizeof(float);
    uint64_t n = 0;
    if (n_bytes >= sizeof(n)) {
        std::memcpy(&n, data, sizeof(n));
    }
    if (n_bytes < sizeof(n) || n > static_cast<uint64_t>(n_tokens) || n_bytes != sizeof(n) * (1 + n) + n * map_bytes) {
        damaged("are not as many as they say");
    }
    const std::byte* lengths = data + sizeof(n);
    const std::byte* maps = lengths + n * sizeof(n);
    Segments segments;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t of_segment = 0;
        std::memcpy(&of_segment, lengths + i * sizeof(of_segment), sizeof(of_segment));
        if (of_segment == 0 || of_segment > static_cast<uint64_t>(n_tokens)) {
            damaged("are of no tokens");
        }
        segments.push_back({static_cast<int64_t>(of_segment), maps_.take()});
        float* map = segments.back().map.get();
        std::memcpy(map, maps + i * map_bytes, map_bytes);
        if (!std::all_of(map, map + maps_.n_floats(), [](float x) { return std::isfinite(x); })) {
            damaged("hold an infinity or a NaN");
        }
    }
    if (length(segments) != n_tokens) {
        damaged("are of another number of tokens");
    }
    return segments;
}

}  // namespace hw
