#include "cache/block-maps.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "base/error.h"

namespace hw {

namespace {

size_t floats_of(const std::vector<Recurrence>& recurrences) {
    return recurrences.empty() ? 0 : recurrences.back().offset + recurrences.back().shape.n_floats();
}

size_t row_floats_of(const std::vector<Recurrence>& recurrences) {
    size_t n = 0;
    for (const Recurrence& recurrence : recurrences) {
        n += recurrence.shape.n_row_floats() * static_cast<size_t>(recurrence.n_rows);
    }
    return n;
}

}  // namespace

int64_t length(const Segments& segments) {
    return std::accumulate(segments.begin(), segments.end(), int64_t{0},
                           [](int64_t sum, const Segment& segment) { return sum + segment.n_tokens; });
}

BlockMaps::BlockMaps(std::vector<Recurrence> recurrences, ThreadPool* pool)
    : recurrences_(std::move(recurrences)),
      pool_(pool),
      maps_(floats_of(recurrences_)),
      rows_(row_floats_of(recurrences_)) {}

size_t BlockMaps::usual_bytes(const std::vector<Recurrence>& recurrences) {
    constexpr size_t n_workers = 4;
    constexpr size_t most_added = 11;  // by a pass: cuts, and one before the last token
    const size_t n_maps = most_segments + most_added + 1 + n_workers;
    return sizeof(float) * (n_maps * floats_of(recurrences) + n_workers * row_floats_of(recurrences));
}

void BlockMaps::add(int32_t block, size_t n_segments) {
    if (is_used()) {
        blocks_[block] = {};
        blocks_[block].segments.reserve(n_segments);
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

void BlockMaps::each(const std::function<void(const Recurrence& recurrence)>& part) const {
    const int n = static_cast<int>(recurrences_.size());
    const auto one = [&](int i) { part(recurrences_[static_cast<size_t>(i)]); };
    if (pool_ != nullptr) {
        return pool_->run(n, one);
    }
    for (int i = 0; i < n; i++) {
        one(i);
    }
}

// The second may have no tokens.
Segment BlockMaps::as_map(const Segment& first, const Segment& second) const {
    Segment whole = {first.n_tokens + second.n_tokens, maps_.take(), second.is_marked};
    const RecurrentRun behind = second.n_tokens > 0 ? second.run() : RecurrentRun{};
    each([&](const Recurrence& recurrence) { join_runs(recurrence, first.run(), behind, whole.map.get()); });
    return whole;
}

Segment BlockMaps::as_rows(const Segment& first, const Segment& second) const {
    const int64_t n = first.n_tokens + second.n_tokens;
    Segment whole = {n, nullptr, second.is_marked, std::make_shared<Rows>(Rows{rows_.take(), n})};
    each([&](const Recurrence& recurrence) {
        copy_rows(recurrence, first.run(), whole.rows->data.get(), 0);
        if (second.n_tokens > 0) {
            copy_rows(recurrence, second.run(), whole.rows->data.get(), first.n_tokens);
        }
    });
    return whole;
}

Segment BlockMaps::join(const Segment& first, const Segment& second) const {
    const bool are_few = first.rows && second.rows && first.n_tokens + second.n_tokens <= n_rows();
    return are_few ? as_rows(first, second) : as_map(first, second);
}

Segments BlockMaps::joined(int32_t dst, int32_t src) const {
    if (!is_used()) {
        return {};
    }
    Segments segments = of(dst);
    if (segments.empty()) {
        return of(src);
    }
    bool is_new = segments.back().is_marked;
    for (const Segment& segment : of(src)) {
        if (is_new) {
            segments.push_back(segment);
        } else {
            segments.back() = join(segments.back(), segment);
        }
        is_new = false;
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
