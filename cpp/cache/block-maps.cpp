#include "cache/block-maps.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "base/error.h"

namespace hw {

namespace {

// Whatever they take if they are small, and fewer of large ones.
size_t most_segments_of(const std::vector<Recurrence>& recurrences) {
    const size_t n_bytes = sizeof(float) * std::max(map_floats(recurrences), size_t{1});
    return std::clamp(most_map_bytes / n_bytes, least_segments, most_segments);
}

}  // namespace

int64_t length(const Segments& segments) {
    return std::accumulate(segments.begin(), segments.end(), int64_t{0},
                           [](int64_t sum, const Segment& segment) { return sum + segment.n_tokens; });
}

BlockMaps::BlockMaps(std::vector<Recurrence> recurrences, ThreadPool* pool)
    : recurrences_(std::move(recurrences)),
      pool_(pool),
      most_segments_(most_segments_of(recurrences_)),
      maps_(map_floats(recurrences_)),
      states_(state_floats(recurrences_)) {
    const int64_t most = is_used() ? n_rows() : 0;
    for (int64_t n = std::min(least_rows, most); n > 0; n = n < most ? std::min(2 * n, most) : 0) {
        rows_.emplace(n, row_floats(recurrences_) * static_cast<size_t>(n));
    }
}

size_t BlockMaps::usual_bytes(const std::vector<Recurrence>& recurrences) {
    if (recurrences.empty()) {
        return 0;
    }
    constexpr size_t n_workers = 4;
    const size_t n_segments = 2 * most_segments_of(recurrences);  // with those that a pass adds
    const size_t n_rows = n_workers * static_cast<size_t>(recurrences.front().n_rows);
    const size_t n_maps = 2 + n_workers;  // one of the history, one that is being made
    return sizeof(float) * (n_segments * state_floats(recurrences) + n_maps * map_floats(recurrences) +
                            n_rows * row_floats(recurrences));
}

size_t BlockMaps::n_bytes_used() const {
    return std::accumulate(rows_.begin(), rows_.end(), maps_.n_bytes() + states_.n_bytes(),
                           [](size_t sum, const auto& rows) { return sum + rows.second.n_bytes(); });
}

void BlockMaps::add(int32_t block, bool is_anchored, size_t n_segments) {
    if (is_used()) {
        blocks_[block] = {};
        blocks_[block].is_anchored = is_anchored;
        blocks_[block].segments.reserve(n_segments);
    }
}

void BlockMaps::remove(int32_t block) {
    blocks_.erase(block);
    if (join_ && join_->block == block) {
        join_.reset();
    }
}

// The segments of a block, to be changed.
Segments& BlockMaps::changed(int32_t block) {
    Held& held = blocks_.at(block);
    held.whole = {0, nullptr};
    held.n_reads = 0;
    return held.segments;
}

const Segments& BlockMaps::of(int32_t block) const {
    static const Segments none;
    return is_used() ? blocks_.at(block).segments : none;
}

int64_t BlockMaps::last_cut(int32_t block, int64_t n) const {
    if (!is_used()) {
        return n;
    }
    int64_t cut = 0;
    for (const Segment& segment : of(block)) {
        if (cut + segment.n_tokens > n) {
            return segment.rows ? n : cut;
        }
        cut += segment.n_tokens;
    }
    return cut;
}

void BlockMaps::check_cut(int32_t block, int64_t n) const {
    if (last_cut(block, n) == n) {
        return;
    }
    std::string cuts = "0";
    int64_t cut = 0;
    for (const Segment& segment : of(block)) {
        cut += segment.n_tokens;
        cuts += (segment.rows ? " to " : ", ") + std::to_string(cut);
    }
    fail(HW_ERROR_ARGUMENT,
         "block %d cannot be cut at token %d: this model has recurrent layers, which keep their states at %s", block,
         static_cast<int>(n), cuts.c_str());
}

void BlockMaps::mark(int32_t block) {
    if (is_used() && !of(block).empty()) {
        blocks_.at(block).segments.back().is_marked = true;
    }
}

void BlockMaps::truncate(int32_t block, int64_t n) {
    if (!is_used()) {
        return;
    }
    Segments& segments = changed(block);
    for (int64_t left = length(segments); left > n;) {
        Segment& last = segments.back();
        if (left - last.n_tokens < n) {
            last.n_tokens -= left - n;
            last.is_marked = false;
            return;
        }
        left -= last.n_tokens;
        segments.pop_back();
    }
}

void BlockMaps::split(int32_t block, int64_t n, int32_t tail) {
    if (!is_used()) {
        return;
    }
    Segments& segments = changed(block);
    auto behind = segments.begin();
    int64_t left = n;
    for (; behind != segments.end() && behind->n_tokens <= left; behind++) {
        left -= behind->n_tokens;
    }
    Segments& others = blocks_.at(tail).segments;
    others.assign(behind, segments.end());
    if (left > 0) {
        others.front().n_tokens -= left;
        others.front().first_row += left;
        behind->n_tokens = left;
        behind->is_marked = false;
        behind++;
    }
    segments.erase(behind, segments.end());
}

// Some of the recurrences.
void BlockMaps::each(size_t first, size_t n, const std::function<void(const Recurrence& recurrence)>& part) const {
    const auto one = [&](int i) { part(recurrences_[first + static_cast<size_t>(i)]); };
    if (pool_ != nullptr) {
        return pool_->run(static_cast<int>(n), one);
    }
    for (size_t i = 0; i < n; i++) {
        one(static_cast<int>(i));
    }
}

// With room for n.
std::shared_ptr<Rows> BlockMaps::new_rows(int64_t n) const {
    const auto pool = rows_.lower_bound(n);
    return std::make_shared<Rows>(Rows{pool->second.take(), pool->first, 0});
}

Segment BlockMaps::as_map(const Segments& parts) const {
    Join join = {0, parts, false};
    go_on(&join, recurrences_.size());
    return {length(parts),       std::move(join.map), parts.back().is_marked, nullptr, 0, parts.front().is_appended,
            parts.front().anchor};
}

// With room for some more.
Segment BlockMaps::as_rows(const Segments& parts, int64_t n_more) const {
    Segment whole = {length(parts), nullptr, parts.back().is_marked, nullptr, 0, parts.front().is_appended};
    whole.rows = new_rows(whole.n_tokens + n_more);
    whole.rows->n_filled = whole.n_tokens;
    each(0, recurrences_.size(), [&](const Recurrence& recurrence) {
        RecurrentRun to = {nullptr, 0, whole.rows->n_room, 0};
        for (const Segment& part : parts) {
            copy_rows(recurrence, part.run(), to, whole.rows->data.get());
            to.n_tokens += part.n_tokens;
        }
    });
    return whole;
}

// Of a state nothing before it is needed.
Segment BlockMaps::join(const Segment& first, const Segment& second) const {
    if (second.anchor) {
        Segment both = second;
        both.n_tokens += first.n_tokens;
        both.anchor->n_before -= first.n_tokens;
        both.anchor->behind = first.anchor ? first.anchor->behind : second.anchor->behind;
        return both;
    }
    const bool are_few = first.rows && second.rows && first.n_tokens + second.n_tokens <= n_rows();
    return are_few ? as_rows({first, second}, 0) : as_map({first, second});
}

// A step is joined to what it is appended to: at once where that takes little, or where there are too many, or later.
Segments BlockMaps::joined(int32_t dst, int32_t src) const {
    if (!is_used()) {
        return {};
    }
    Segments segments = of(dst);
    if (segments.empty()) {
        return of(src);
    }
    if (std::any_of(of(src).begin(), of(src).end(),
                    [](const Segment& segment) { return segment.anchor.has_value(); })) {
        fail(HW_ERROR_ARGUMENT, "block %d is anchored: it stands behind other tokens than block %d ends with", src,
             dst);
    }
    for (const Segment& segment : of(src)) {
        Segment& last = segments.back();
        const bool are_few = last.rows && segment.rows && last.n_tokens + segment.n_tokens <= n_rows();
        if (!last.is_marked && (are_few || segments.size() >= most_segments_)) {
            last = join(last, segment);
        } else {
            const bool is_appended = !last.is_marked;
            segments.push_back(segment);
            segments.back().is_appended = is_appended;
        }
        segments.back().is_marked = false;
    }
    return segments;
}

void BlockMaps::replace(int32_t block, Segments segments) {
    if (is_used()) {
        changed(block).swap(segments);
    }
}

}  // namespace hw
