// What a pass does to the maps of blocks: where its tokens go, and what its views read.
#include <algorithm>
#include <set>

#include "base/error.h"
#include "cache/block-maps.h"
#include "kernel/read-order.h"

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

// The works that are in no view yet, as one.
void push_view(RecurrentPlan* plan) {
    const int32_t first = plan->views.empty() ? 0 : plan->views.back().first_work + plan->views.back().n_works;
    plan->views.push_back({0, 0, first, static_cast<int32_t>(plan->works.size()) - first});
}

// Where segments end of tokens that are fed to a block of `before`, counted in the block. n_cuts: 0 for few tokens.
std::vector<int64_t> ends_of_feed(int64_t before, int64_t end, int64_t n_cuts) {
    std::vector<int64_t> ends;
    const int64_t spacing = n_cuts > 0 ? spacing_of(end, n_cuts) : end;
    for (int64_t at = (before / spacing + 1) * spacing; at < end; at += spacing) {
        ends.push_back(at);
    }
    ends.push_back(end);
    return ends;
}

}  // namespace

bool BlockMaps::fits_rows(int64_t n_tokens) const { return n_tokens < many_tokens && n_tokens <= n_rows(); }

// The segments of the own block with the tokens of the pass, of which nothing is computed yet. Returns how many views
// of the plan these are: what makes states is one of its own.
size_t BlockMaps::feed(const FedView& view, bool is_anchored, MapPass* pass) {
    const int32_t own = view.blocks[view.n_blocks - 1];
    const Segments& held = of(own);
    const bool is_only_owner = !held.empty() && held.back().rows && held.back().rows.use_count() == 1;
    Segments& segments = pass->after[own];
    segments = held;
    RecurrentPlan& plan = pass->plan;
    const size_t n_before = plan.views.size();
    if (fits_rows(view.n_tokens)) {
        feed_rows(view, is_only_owner, &segments, &plan);
    } else if (view.n_tokens < many_tokens) {
        feed_maps(view, false, &segments, &plan);
    } else {  // the last one alone
        const int32_t n = view.n_tokens - 1;
        const FedView first = {view.blocks, view.n_blocks, view.first_token, n};
        const FedView last = {view.blocks, view.n_blocks, view.first_token + n, 1};
        if (is_anchored) {
            feed_states(first, pass);
            push_view(&plan);
        } else {
            feed_maps(first, true, &segments, &plan);
        }
        n_rows() > 0 ? feed_rows(last, false, &segments, &plan) : feed_maps(last, true, &segments, &plan);
    }
    push_view(&plan);
    plan.n_tokens = std::max(plan.n_tokens, view.first_token + view.n_tokens);
    return plan.views.size() - n_before;
}

// is_many: they begin a segment, and may become several.
void BlockMaps::feed_maps(const FedView& view, bool is_many, Segments* segments, RecurrentPlan* plan) const {
    bool is_new =
        is_many || segments->empty() || segments->back().is_marked || segments->back().rows || segments->back().anchor;
    int64_t at = length(*segments);
    int32_t token = view.first_token;
    for (const int64_t end : ends_of_feed(at, at + view.n_tokens, is_many ? n_cuts() : 0)) {
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

// Of a view none of whose other blocks is fed in this pass.
void BlockMaps::feed_states(const FedView& view, MapPass* pass) {
    Segments* segments = &pass->after.at(view.blocks[view.n_blocks - 1]);
    RecurrentPlan* plan = &pass->plan;
    Anchor anchor = checked_end(view, pass->after);
    RecurrentRun before = {nullptr, anchor.n_before, 0, 0, true};
    int64_t at = length(*segments);
    int32_t token = view.first_token;
    for (const int64_t end : ends_of_feed(at, at + view.n_tokens, n_cuts())) {
        const int32_t n = static_cast<int32_t>(end - at);
        anchor.id = ids_() | 1;
        segments->push_back({n, states_.take(), false, nullptr, 0, false, anchor});
        plan->works.push_back({before, segments->back().map.get(), token, n});
        before = plan->works.back().run();
        anchor = {0, anchor.id, before.n_tokens};
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

// What stands before the tokens of a view, but for the last n_own segments of its own block.
void BlockMaps::link(const FedView& view, size_t n_own, const MapPass& known, RecurrentView* linked,
                     RecurrentPlan* plan) const {
    linked->first_link = static_cast<int32_t>(plan->links.size());
    const auto add = [&](const RecurrentRun& run) {
        if (run.is_state) {  // nothing before it is read
            plan->links.resize(static_cast<size_t>(linked->first_link));
        }
        plan->links.push_back(run);
    };
    for (int32_t i = 0; i < view.n_blocks; i++) {
        const auto after = known.after.find(view.blocks[i]);
        if (after == known.after.end() && blocks_.at(view.blocks[i]).whole.n_tokens > 0) {
            add(blocks_.at(view.blocks[i]).whole.run());
            continue;
        }
        const Segments& segments = after != known.after.end() ? after->second : of(view.blocks[i]);
        const size_t n = i == view.n_blocks - 1 ? n_own : 0;
        for (size_t k = 0; k + n < segments.size(); k++) {
            add(segments[k].run());
        }
    }
    linked->n_links = static_cast<int32_t>(plan->links.size()) - linked->first_link;
}

// What a state would say that followed the tokens of a view. Throws unless all of its states are where they belong.
Anchor BlockMaps::checked_end(const FedView& view, const std::map<int32_t, Segments>& after) const {
    Anchor end = {0, 0, 0};
    for (int32_t i = 0; i < view.n_blocks; i++) {
        const auto fed = after.find(view.blocks[i]);
        for (const Segment& segment : fed != after.end() ? fed->second : of(view.blocks[i])) {
            const std::optional<Anchor>& anchor = segment.anchor;
            if (anchor && (anchor->behind != end.behind || anchor->n_before != end.n_before)) {
                fail(HW_ERROR_ARGUMENT,
                     "block %d is anchored: what it holds stands behind the same %d tokens in every view, and not "
                     "behind these %d",
                     view.blocks[i], static_cast<int>(anchor->n_before), static_cast<int>(end.n_before));
            }
            end.behind = anchor ? anchor->id : end.behind;
            end.n_before += segment.n_tokens;
        }
    }
    return end;
}

MapPass BlockMaps::plan(const std::vector<FedView>& views) {
    MapPass pass;
    if (!is_used()) {
        return pass;
    }
    std::set<int32_t> fed;
    for (const FedView& view : views) {
        fed.insert(view.blocks[view.n_blocks - 1]);
    }
    join_ahead(views);
    std::vector<size_t> n_views;  // of the plan, for each
    for (const FedView& view : views) {
        const int32_t own = view.blocks[view.n_blocks - 1];
        make_room(own, view.n_tokens);
        const bool are_others_fed = std::any_of(view.blocks, view.blocks + view.n_blocks - 1,
                                                [&](int32_t block) { return fed.count(block) > 0; });
        n_views.push_back(feed(view, is_anchored(own) && !are_others_fed, &pass));
    }
    auto linked = pass.plan.views.begin();
    for (size_t i = 0; i < views.size(); i++) {
        checked_end(views[i], pass.after);
        const auto end = linked + static_cast<std::ptrdiff_t>(n_views[i]);
        size_t n_own = 0;
        for (auto view = linked; view != end; view++) {
            n_own += static_cast<size_t>(view->n_works);
        }
        for (; linked != end; linked++) {
            link(views[i], n_own, pass, &*linked, &pass.plan);
            n_own -= static_cast<size_t>(linked->n_works);
        }
    }
    return pass;
}

void BlockMaps::add_begins(MapPass* pass) const {
    RecurrentPlan& plan = pass->plan;
    for (RecurrentView& view : plan.views) {
        const RecurrentRun* links = plan.links.data() + view.first_link;
        const bool are_joined = view.n_links > 1 || (view.n_links == 1 && !links[0].is_state);
        if (makes_states(plan, view) && are_joined) {
            pass->begins.push_back((links[0].is_state ? states_ : maps_).take());
            view.begin = pass->begins.back().get();
        }
    }
}

void BlockMaps::commit(MapPass pass) {
    for (auto& [block, segments] : pass.after) {
        changed(block).swap(segments);
    }
}

}  // namespace hw
