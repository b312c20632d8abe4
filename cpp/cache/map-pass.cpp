// What a pass does to the maps of blocks: where its tokens go, and what its views read.
#include <algorithm>
#include <new>
#include <set>

#include "base/error.h"
#include "cache/block-maps.h"

namespace hw {

namespace {

constexpr int64_t many_tokens = 16;    // fed at once
constexpr int64_t least_spacing = 64;  // of cuts in them
constexpr int64_t most_cuts = 8;       // that a long block gets in even spaces
constexpr int32_t reads_before = 3;    // passes that read a block before its segments are joined for the next ones

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

bool BlockMaps::fits_rows(int64_t n_tokens) const { return n_tokens < many_tokens && n_tokens <= n_rows(); }

// Joins segments, which changes nothing of what the block holds. Rows that are too many go to the segment before.
void BlockMaps::make_room(int32_t block, int32_t n_tokens) {
    Segments& segments = blocks_.at(block).segments;
    const auto is_full = [&] {
        return !segments.empty() && segments.back().rows && !segments.back().is_marked &&
               segments.back().n_tokens + n_tokens > n_rows();
    };
    while (fits_rows(n_tokens) && is_full()) {
        const size_t n = segments.size();
        if (n > 1 && !segments[n - 2].is_marked) {
            segments[n - 2] = join(segments[n - 2], segments[n - 1]);
            segments.pop_back();
        } else {
            segments.back() = as_map(segments.back(), {0, nullptr});
        }
    }
    thin(&segments);
}

// The cut before the last segment stays: a prompt that was fed last is parted from there.
void BlockMaps::thin(Segments* segments) const {
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
    if (held->segments.size() < 2 || held->whole.n_tokens > 0 || held->n_reads++ < reads_before) {
        return;
    }
    held->n_reads = 0;
    try {
        Segment whole = held->segments.front();
        for (size_t i = 1; i < held->segments.size(); i++) {
            whole = join(whole, held->segments[i]);
        }
        held->whole = std::move(whole);
    } catch (const Error&) {
    } catch (const std::bad_alloc&) {
    }
}

// The segments of the own block with the tokens of the pass, of which nothing is computed yet.
void BlockMaps::feed(const FedView& view, MapPass* pass) const {
    const int32_t own = view.blocks[view.n_blocks - 1];
    const Segments& held = of(own);
    const bool is_only_owner = !held.empty() && held.back().rows && held.back().rows.use_count() == 1;
    Segments& segments = pass->after[own];
    segments = held;
    const int32_t first_work = static_cast<int32_t>(pass->plan.works.size());
    if (fits_rows(view.n_tokens)) {
        feed_rows(view, is_only_owner, &segments, &pass->plan);
    } else {
        feed_maps(view, &segments, &pass->plan);
    }
    pass->plan.views.push_back({0, 0, first_work, static_cast<int32_t>(pass->plan.works.size()) - first_work});
    pass->plan.n_tokens = std::max(pass->plan.n_tokens, view.first_token + view.n_tokens);
}

void BlockMaps::feed_maps(const FedView& view, Segments* segments, RecurrentPlan* plan) const {
    bool is_new =
        segments->empty() || segments->back().is_marked || segments->back().rows || view.n_tokens >= many_tokens;
    int64_t at = length(*segments);
    int32_t token = view.first_token;
    for (const int64_t end : ends_of_feed(at, view.n_tokens)) {
        if (end == at) {
            continue;
        }
        const int32_t n = static_cast<int32_t>(end - at);
        Segment segment = {n, maps_.take()};
        RecurrentWork work = {{}, segment.map.get(), token, n};
        if (is_new) {
            segments->push_back(std::move(segment));
        } else {
            // The map before is held by the block until the pass is committed.
            work.before = segments->back().run();
            segment.n_tokens += work.before.n_tokens;
            segments->back() = std::move(segment);
        }
        is_new = true;
        plan->works.push_back(work);
        token += n;
        at = end;
    }
}

// is_only_owner: of the last segment's rows, beside the pass.
void BlockMaps::feed_rows(const FedView& view, bool is_only_owner, Segments* segments, RecurrentPlan* plan) const {
    if (segments->empty() || segments->back().is_marked || !segments->back().rows) {
        segments->push_back({0, nullptr, false, std::make_shared<Rows>(Rows{rows_.take(), 0})});
    }
    Segment& run = segments->back();
    const auto end = [&] { return run.first_row + run.n_tokens; };
    if (end() + view.n_tokens > n_rows() || (end() != run.rows->n_filled && !is_only_owner)) {
        run = as_rows(run, {0, nullptr});
    }
    plan->works.push_back({run.run(), run.rows->data.get(), view.first_token, view.n_tokens});
    run.rows->n_filled = end() + view.n_tokens;
    run.n_tokens += view.n_tokens;
}

// What stands before the tokens of a view.
void BlockMaps::link(const FedView& view, const MapPass& known, RecurrentView* linked, RecurrentPlan* plan) const {
    linked->first_link = static_cast<int32_t>(plan->links.size());
    for (int32_t i = 0; i < view.n_blocks; i++) {
        const auto after = known.after.find(view.blocks[i]);
        if (after == known.after.end() && blocks_.at(view.blocks[i]).whole.n_tokens > 0) {
            plan->links.push_back(blocks_.at(view.blocks[i]).whole.run());
            continue;
        }
        const Segments& segments = after != known.after.end() ? after->second : of(view.blocks[i]);
        const size_t n_own = i == view.n_blocks - 1 ? static_cast<size_t>(linked->n_works) : 0;
        for (size_t k = 0; k + n_own < segments.size(); k++) {
            plan->links.push_back(segments[k].run());
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
        make_room(view.blocks[view.n_blocks - 1], view.n_tokens);
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

}  // namespace hw
