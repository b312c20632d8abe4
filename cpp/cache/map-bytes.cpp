// What a block's tokens do to states, as bytes: segment by segment, all as maps.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "cache/block-maps.h"

namespace hw {

namespace {

// What is written of a segment before its map or state.
struct Written {
    uint64_t n_tokens;
    uint64_t id;  // Anchor; 0: it is a map
    uint64_t behind;
    uint64_t n_before;
};

// What is written of a block before its segments.
struct WrittenBlock {
    uint64_t n_segments;
    uint64_t is_anchored;
};

[[noreturn]] void damaged(const char* how) {
    fail(HW_ERROR_ARGUMENT, "these are no data of a block: its recurrent states %s", how);
}

// Takes numbers off data.
template <class Numbers>
Numbers taken(const std::byte** data, const std::byte* end) {
    Numbers numbers;
    if (static_cast<size_t>(end - *data) < sizeof(numbers)) {
        damaged("are not as many as they say");
    }
    std::memcpy(&numbers, *data, sizeof(numbers));
    *data += sizeof(numbers);
    return numbers;
}

}  // namespace

size_t BlockMaps::n_bytes(const Segment& segment) const {
    return (segment.anchor ? states_ : maps_).n_floats() * sizeof(float);
}

size_t BlockMaps::n_bytes(int32_t block) const {
    size_t sum = is_used() ? sizeof(WrittenBlock) : 0;
    for (const Segment& segment : of(block)) {
        sum += sizeof(Written) + n_bytes(segment);
    }
    return sum;
}

void BlockMaps::read(int32_t block, std::byte* data) const {
    if (!is_used()) {
        return;
    }
    const auto put = [&](const void* from, size_t n) {
        std::memcpy(data, from, n);
        data += n;
    };
    const WrittenBlock all = {of(block).size(), is_anchored(block) ? uint64_t{1} : 0};
    put(&all, sizeof(all));
    for (const Segment& segment : of(block)) {
        const Anchor anchor = segment.anchor.value_or(Anchor{0, 0, 0});
        const Written written = {static_cast<uint64_t>(segment.n_tokens), anchor.id, anchor.behind,
                                 static_cast<uint64_t>(anchor.n_before)};
        put(&written, sizeof(written));
        const Map map = segment.map ? segment.map : as_map({segment}).map;
        put(map.get(), n_bytes(segment));
    }
}

// Of untrusted bytes.
Segments BlockMaps::from_bytes(const std::byte* data, size_t n_bytes, int64_t n_tokens, bool* is_anchored) const {
    if (!is_used()) {
        return {};
    }
    const std::byte* end = data + n_bytes;
    const WrittenBlock all = taken<WrittenBlock>(&data, end);
    *is_anchored = all.is_anchored != 0;
    constexpr uint64_t most = uint64_t{1} << 31;  // tokens
    Segments segments;
    for (uint64_t i = 0; i < all.n_segments; i++) {
        const Written written = taken<Written>(&data, end);
        if (written.n_tokens == 0 || written.n_tokens > static_cast<uint64_t>(n_tokens)) {
            damaged("are of no tokens");
        }
        if (written.n_before >= most) {
            damaged("stand nowhere");
        }
        Segment segment = {static_cast<int64_t>(written.n_tokens), nullptr};
        if (written.id != 0) {
            segment.anchor = Anchor{written.id, written.behind, static_cast<int64_t>(written.n_before)};
        }
        const size_t n = this->n_bytes(segment);
        if (static_cast<size_t>(end - data) < n) {
            damaged("are not as many as they say");
        }
        segment.map = (segment.anchor ? states_ : maps_).take();
        std::memcpy(segment.map.get(), data, n);
        data += n;
        if (!std::all_of(segment.map.get(), segment.map.get() + n / sizeof(float),
                         [](float x) { return std::isfinite(x); })) {
            damaged("hold an infinity or a NaN");
        }
        segments.push_back(std::move(segment));
    }
    if (data != end) {
        damaged("are not as many as they say");
    }
    if (length(segments) != n_tokens) {
        damaged("are of another number of tokens");
    }
    return segments;
}

}  // namespace hw
