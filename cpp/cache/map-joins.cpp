// Segments of blocks are joined ahead, a few recurrences in each pass; or at once, where there is no room.
#include <algorithm>
#include <new>
#include <set>
#include <utility>

#include "base/error.h"
#include "cache/block-maps.h"

namespace hw {

namespace {

constexpr int32_t reads_before = 3;  // passes that read a block before its segments are joined for the next ones
constexpr size_t least_passes = 16;  // that a join is spread over, where nothing is short

bool is_same(const Segment& a, const Segment& b) {
    return a.map == b.map && a.rows == b.rows && a.first_row == b.first_row;
}

// The last state of a block, or its begin.
Segments::const_iterator first_read(const Segments& segments) {
    const auto state = std::find_if(segments.rbegin(), segments.rend(), [](const Segment& s) { return s.anchor; });
    return state == segments.rend() ? segments.begin() : state.base() - 1;
}

}  // namespace

// What waits to be joined at the end of a block, if that has so many rows: rows, and what was appended, with the map
// before them.
std::optional<Join> BlockMaps::tail_of(int32_t block, int64_t n_least) const {
    const Segments& segments = of(block);
    size_t first = segments.size();
    int64_t n_rows = 0;
    bool has_maps = false;
    while (first > 0 && (segments[first - 1].rows || segments[first - 1].is_appended) &&
           (first == segments.size() || !segments[first - 1].is_marked)) {
        first--;
        n_rows += segments[first].rows ? segments[first].n_tokens : 0;
        has_maps |= segments[first].map != nullptr;
    }
    if (first == segments.size() || (n_rows < n_least && !has_maps)) {
        return std::nullopt;
    }
    first -= first > 0 && !segments[first - 1].is_marked ? 1 : 0;
    return Join{block, Segments(segments.begin() + static_cast<std::ptrdiff_t>(first), segments.end()), false};
}

// n more recurrences.
void BlockMaps::go_on(Join* join, size_t n) const {
    if (!join->map) {
        join->map = join->parts.front().anchor ? states_.take() : maps_.take();
    }
    std::vector<RecurrentRun> runs;
    for (const Segment& part : join->parts) {
        runs.push_back(part.run());
    }
    each(join->n_done, n, [&](const Recurrence& recurrence) { join_runs(recurrence, runs, join->map.get()); });
    join->n_done += n;
    n_joined_ += static_cast<int64_t>(n);
}

// Of no use where the block is not what it was.
void BlockMaps::finish(const Join& join) {
    Held& held = blocks_.at(join.block);
    Segments& segments = held.segments;
    const auto first = std::search(segments.begin(), segments.end(), join.parts.begin(), join.parts.end(), is_same);
    if (segments.end() - first < static_cast<std::ptrdiff_t>(join.parts.size())) {
        return;
    }
    const auto last = first + static_cast<std::ptrdiff_t>(join.parts.size()) - 1;
    const Segment& part = join.parts.back();
    const bool are_same = std::equal(first, last, join.parts.begin(),
                                     [](const Segment& a, const Segment& b) { return a.n_tokens == b.n_tokens; });
    Segment whole = {length(join.parts), join.map, last->is_marked, nullptr, 0, first->is_appended, first->anchor};
    if (join.is_whole) {
        if (are_same && last + 1 == segments.end() && first == first_read(segments)) {
            held.whole = std::move(whole);
        }
        return;
    }
    if (!are_same || last->n_tokens < part.n_tokens) {
        return;
    }
    Segments after = {std::move(whole)};
    if (last->n_tokens > part.n_tokens) {
        after.front().is_marked = false;
        after.push_back(*last);
        after.back().n_tokens -= part.n_tokens;
        after.back().first_row += part.n_tokens;
        after.back().is_appended = false;
    }
    segments.insert(segments.erase(first, last + 1), after.begin(), after.end());
}

// The one that is needed first: rows of blocks that are fed, the fullest first; what was appended to others; the whole
// of a block that passes go on reading as it is.
bool BlockMaps::begin_join(const std::set<int32_t>& fed, const std::set<int32_t>& read) {
    const int64_t enough = std::max(3 * n_rows() / 4, int64_t{1});
    for (const std::set<int32_t>* blocks : {&fed, &read}) {
        for (const int32_t block : *blocks) {
            std::optional<Join> tail = tail_of(block, enough);
            if (tail && (!join_ || length(tail->parts) > length(join_->parts))) {
                join_ = std::move(tail);
            }
        }
        if (join_) {
            return true;
        }
    }
    for (const int32_t block : read) {
        const Held& held = blocks_.at(block);
        const Segments parts(first_read(held.segments), held.segments.end());
        if (held.n_reads >= reads_before && parts.size() > 1 && held.whole.n_tokens == 0) {
            join_ = Join{block, parts, true};
            return true;
        }
    }
    return false;
}

// Without memory for a map blocks stay as they are, until they must be joined.
void BlockMaps::join_ahead(const std::vector<FedView>& views) {
    std::set<int32_t> fed;
    std::set<int32_t> read;
    for (const FedView& view : views) {
        fed.insert(view.blocks[view.n_blocks - 1]);
        read.insert(view.blocks, view.blocks + view.n_blocks);
    }
    for (const int32_t block : read) {
        blocks_.at(block).n_reads += fed.count(block) == 0 ? 1 : 0;
    }
    const size_t n = recurrences_.size();
    size_t left = (n + least_passes - 1) / least_passes;
    if (n_rows() > 0) {
        left = std::max(left, 4 * n * views.size() / static_cast<size_t>(n_rows()));
    }
    try {
        while (left > 0 && (join_ || begin_join(fed, read))) {
            const size_t now = std::min(left, n - join_->n_done);
            go_on(&*join_, now);
            left -= now;
            if (join_->n_done == n) {
                finish(*join_);
                join_.reset();
            }
        }
    } catch (const Error&) {
        join_.reset();
    } catch (const std::bad_alloc&) {
        join_.reset();
    }
}

// For rows of so many tokens.
void BlockMaps::make_room(int32_t block, int32_t n_tokens) {
    Segments& segments = blocks_.at(block).segments;
    const auto is_full = [&] {
        return !segments.empty() && segments.back().rows && !segments.back().is_marked &&
               segments.back().n_tokens + n_tokens > n_rows();
    };
    while (fits_rows(n_tokens) && is_full()) {
        const bool is_begun = join_ && join_->block == block && !join_->is_whole;
        Join join = is_begun ? *std::exchange(join_, std::nullopt) : *tail_of(block, 0);
        go_on(&join, recurrences_.size() - join.n_done);
        finish(join);
    }
    thin(&segments);
}

// The cut before the last segment stays: a prompt that was fed last is parted from there.
void BlockMaps::thin(Segments* segments) const {
    while (segments->size() > most_segments_) {
        size_t best = 0;
        const auto cost = [&](size_t i) {
            const int64_t n = (*segments)[i].n_tokens + (*segments)[i + 1].n_tokens;
            return (*segments)[i].is_marked ? n + (int64_t(1) << 32) : n;
        };
        for (size_t i = 1; i + 2 < segments->size(); i++) {
            best = cost(i) < cost(best) ? i : best;
        }
        (*segments)[best] = join((*segments)[best], (*segments)[best + 1]);
        segments->erase(segments->begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
}

}  // namespace hw
