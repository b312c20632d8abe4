#include "cache/block-maps.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <numeric>
#include <set>
#include <string>

#include "base/error.h"

namespace hw {

namespace {

constexpr size_t most_segments = 12;   // of a block, before a pass adds some
constexpr int64_t many_tokens = 16;    // fed at once
constexpr int64_t least_spacing = 64;  // of cuts in them
constexpr int64_t most_cuts = 8;       // that a long block gets in even spaces
constexpr int32_t reads_before = 3;    // passes that read a block before its segments are joined for the next ones

size_t floats_of(const std::vector<Recurrence>& recurrences) {
    return recurrences.empty() ? 0 : recurrences.back().offset + recurrences.back().shape.n_floats();
}

int64_t length(const Segments& segments) {
    return std::accumulate(segments.begin(), segments.end(), int64_t{0},
                           [](int64_t sum, const Segment& segment) { return sum + segment.n_tokens; });
}

int64_t spacing_of(int64_t n_tokens) {
    int64_t spacing = least_spacing;
    while (spacing * most_cuts < n_tokens) {
        spacing *= 2;
    }
    return spacing;
}

// Where segments end of n tokens that are fed to a block of `before`; counted in the block.
std::vector<int64_t> ends_of_feed(int64_t before, int64_t n) {
    std::vector<int64_t> ends;
    const int64_t end = before + n;
    if (n >= many_tokens) {
        const int64_t spacing = spacing_of(end);
        for (int64_t at = (before / spacing + 1) * spacing; at < end - 1; at += spacing) {
            ends.push_back(at);
        }
        ends.push_back(end - 1);
    }
    ends.push_back(end);
    return ends;
}

}  // namespace

BlockMaps::BlockMaps(std::vector<Recurrence> recurrences, ThreadPool* pool)
    : recurrences_(std::move(recurrences)), pool_(pool), maps_(floats_of(recurrences_)) {}

void BlockMaps::add(int32_t block, size_t n_segments) {
    if (is_used()) {
        blocks_[block] = {};
        blocks_[block].segments.reserve(n_segments);
    }
}

// The segments of a block, to be changed.
Segments& BlockMaps::changed(int32_t block) {
    Held& held = blocks_.at(block);
    held.whole = nullptr;
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
            break;
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
        cuts += ", " + std::to_string(cut);
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
    if (is_used()) {
        Segments& segments = changed(block);
        for (int64_t left = length(segments); left > n; segments.pop_back()) {
            left -= segments.back().n_tokens;
        }
    }
}

void BlockMaps::split(int32_t block, int64_t n, int32_t tail) {
    if (is_used()) {
        Segments& segments = changed(block);
        auto behind = segments.begin();
        for (int64_t cut = 0; cut < n; behind++) {
            cut += behind->n_tokens;
        }
        blocks_.at(tail).segments.assign(behind, segments.end());
        segments.erase(behind, segments.end());
    }
}

Segment BlockMaps::join(const Segment& first, const Segment& second) const {
    Segment whole = {first.n_tokens + second.n_tokens, maps_.take(), second.is_marked};
    const auto part = [&](int i) {
        join_maps(recurrences_[static_cast<size_t>(i)], {first.map.get(), first.n_tokens},
                  {second.map.get(), second.n_tokens}, whole.map.get());
    };
    const int n = static_cast<int>(recurrences_.size());
    if (pool_ != nullptr) {
        pool_->run(n, part);
    } else {
        for (int i = 0; i < n; i++) {
            part(i);
        }
    }
    return whole;
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

// The cut before the last segment stays: a prompt that was fed last is parted from there.
void BlockMaps::thin(int32_t block) {
    Segments* segments = &blocks_.at(block).segments;
    while (segments->size() > most_segments) {
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

// A block that passes go on reading as it is gets a map of its whole. Without memory for that it is read as before.
void BlockMaps::note_read(Held* held) const {
    if (held->segments.size() < 2 || held->whole != nullptr || held->n_reads++ < reads_before) {
        return;
    }
    held->n_reads = 0;
    try {
        Segment whole = held->segments.front();
        for (size_t i = 1; i < held->segments.size(); i++) {
            whole = join(whole, held->segments[i]);
        }
        held->whole = std::move(whole.map);
    } catch (const Error&) {
    } catch (const std::bad_alloc&) {
    }
}

// The segments of the own block with the tokens of the pass, whose maps are still to be computed.
void BlockMaps::feed(const FedView& view, MapPass* pass) const {
    const int32_t own = view.blocks[view.n_blocks - 1];
    Segments& segments = pass->after[own];
    segments = of(own);
    const bool is_new = segments.empty() || segments.back().is_marked || view.n_tokens >= many_tokens;
    int64_t at = length(segments);
    int32_t token = view.first_token;
    RecurrentView fed = {0, 0, static_cast<int32_t>(pass->plan.works.size()), 0};
    for (const int64_t end : ends_of_feed(at, view.n_tokens)) {
        if (end == at) {
            continue;
        }
        const int32_t n = static_cast<int32_t>(end - at);
        RecurrentWork work = {nullptr, 0, nullptr, token, n};
        Segment segment = {n, maps_.take()};
        work.after = segment.map.get();
        if (fed.n_works == 0 && !is_new) {
            // The map before is held by the block until the pass is committed.
            work.before = segments.back().map.get();
            work.n_before = segments.back().n_tokens;
            segment.n_tokens += work.n_before;
            segments.back() = std::move(segment);
        } else {
            segments.push_back(std::move(segment));
        }
        pass->plan.works.push_back(work);
        fed.n_works++;
        token += n;
        at = end;
    }
    pass->plan.views.push_back(fed);
    pass->plan.n_tokens = std::max(pass->plan.n_tokens, token);
}

// What stands before the tokens of a view.
void BlockMaps::link(const FedView& view, const MapPass& known, RecurrentView* linked, RecurrentPlan* plan) const {
    linked->first_link = static_cast<int32_t>(plan->links.size());
    for (int32_t i = 0; i < view.n_blocks; i++) {
        const auto after = known.after.find(view.blocks[i]);
        if (after == known.after.end() && is_used() && blocks_.at(view.blocks[i]).whole != nullptr) {
            plan->links.push_back({blocks_.at(view.blocks[i]).whole.get(), length(of(view.blocks[i]))});
            continue;
        }
        const Segments& segments = after != known.after.end() ? after->second : of(view.blocks[i]);
        const size_t n_own = i == view.n_blocks - 1 ? static_cast<size_t>(linked->n_works) : 0;
        for (size_t k = 0; k + n_own < segments.size(); k++) {
            plan->links.push_back({segments[k].map.get(), segments[k].n_tokens});
        }
    }
    linked->n_links = static_cast<int32_t>(plan->links.size()) - linked->first_link;
}

MapPass BlockMaps::plan(const std::vector<FedView>& views) {
    MapPass pass;
    if (!is_used()) {
        return pass;
    }
    for (const FedView& view : views) {
        thin(view.blocks[view.n_blocks - 1]);
        feed(view, &pass);
    }
    std::set<int32_t> read;
    for (const FedView& view : views) {
        read.insert(view.blocks, view.blocks + view.n_blocks);
    }
    for (const int32_t block : read) {
        if (pass.after.count(block) == 0) {
            note_read(&blocks_.at(block));
        }
    }
    for (size_t i = 0; i < views.size(); i++) {
        link(views[i], pass, &pass.plan.views[i], &pass.plan);
    }
    return pass;
}

void BlockMaps::commit(MapPass pass) {
    for (auto& [block, segments] : pass.after) {
        changed(block).swap(segments);
    }
}

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
        std::memcpy(data, segment.map.get(), maps_.n_floats() * sizeof(float));
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
