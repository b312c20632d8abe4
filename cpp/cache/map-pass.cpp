// What a pass does to the maps of blocks: where its tokens go, and what its views read.
#include <algorithm>

#include "cache/block-maps.h"

namespace hw {

namespace {

constexpr int64_t many_tokens = 16;    // fed at once
constexpr int64_t least_spacing = 64;  // of cuts in them

int64_t spacing_of(int64_t n_tokens, int64_t n_cuts) {
    int64_t spacing = least_spacing;
    while (spacing * n_cuts < n_tokens) {
        spacing *= 2;
    }
    return spacing;
}

// Where segments end of many tokens that are fed to a block of `before`, but for its end; counted in the block.
std::vector<int64_t> cuts_of_feed(int64_t before, int64_t end, int64_t n_cuts) {
    std::vector<int64_t> ends;
    const int64_t spacing = spacing_of(end, n_cuts);
    for (int64_t at = (before / spacing + 1) * spacing; at < end; at += spacing) {
        ends.push_back(at);
    }
    return ends;
}

}  // namespace

bool BlockMaps::fits_rows(int64_t n_tokens) const { return n_tokens < many_tokens && n_tokens <= n_rows(); }

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
    } else if (view.n_tokens < many_tokens) {
        feed_maps(view, false, &segments, &pass->plan);
    } else {  // the last one alone
        const int32_t n = view.n_tokens - 1;
        const FedView last = {view.blocks, view.n_blocks, view.first_token + n, 1};
        feed_maps({view.blocks, view.n_blocks, view.first_token, n}, true, &segments, &pass->plan);
        n_rows() > 0 ? feed_rows(last, false, &segments, &pass->plan) : feed_maps(last, true, &segments, &pass->plan);
    }
    pass->plan.views.push_back({0, 0, first_work, static_cast<int32_t>(pass->plan.works.size()) - first_work});
    pass->plan.n_tokens = std::max(pass->plan.n_tokens, view.first_token + view.n_tokens);
}

// is_many: they begin a segment, and may become several.
void BlockMaps::feed_maps(const FedView& view, bool is_many, Segments* segments, RecurrentPlan* plan) const {
    bool is_new = is_many || segments->empty() || segments->back().is_marked || segments->back().rows;
    int64_t at = length(*segments);
    int32_t token = view.first_token;
    std::vector<int64_t> ends;
    if (is_many) {
        ends = cuts_of_feed(at, at + view.n_tokens, static_cast<int64_t>(2 * most_segments_ / 3));
    }
    ends.push_back(at + view.n_tokens);
    for (const int64_t end : ends) {
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
        segments->push_back({0, nullptr, false, new_rows(view.n_tokens)});
    }
    Segment& run = segments->back();
    const auto end = [&] { return run.first_row + run.n_tokens; };
    if (end() + view.n_tokens > run.rows->n_room || (end() != run.rows->n_filled && !is_only_owner)) {
        run = as_rows({run}, view.n_tokens);
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
    join_ahead(views);
    for (const FedView& view : views) {
        make_room(view.blocks[view.n_blocks - 1], view.n_tokens);
        feed(view, &pass);
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
