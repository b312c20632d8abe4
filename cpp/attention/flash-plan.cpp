#include "attention/flash-plan.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "attention/mirror-places.h"

namespace hw {

namespace {

constexpr int64_t nowhere = -1;  // a mirror that has no place yet

int64_t n_cells_of(const FlashPlan& plan) {
    return std::accumulate(plan.runs.begin(), plan.runs.end(), int64_t{0},
                           [](int64_t sum, const FlashRun& run) { return sum + run.n_cells; });
}

// Against attention block by block. Measured on the CPU (benchmarks/attention_forms.py): a cell of the run costs about
// a third of one that is seen block by block, and a mirrored one, which is read, turned and written, about that again.
// The rest is for the number of operations, which grows with the number of blocks there.
bool is_worthwhile(const Pass& pass, const FlashPlan& plan) {
    constexpr int64_t cost_of_mirrored = 2;
    constexpr int64_t cost_of_seen = 3;
    constexpr int64_t cost_of_operations = 4096;
    int64_t n_seen = 0;
    for (const PassBlock& block : pass.blocks) {
        n_seen += block.n_cells;
    }
    return n_cells_of(plan) + cost_of_mirrored * plan.n_mirrored <= cost_of_seen * n_seen + cost_of_operations;
}

int64_t n_cells_of(const Pass& pass, const Mirror& mirror) {
    return pass.blocks[static_cast<size_t>(mirror.block)].n_cells;
}

// The mirrors that the pairs need (where each goes: later), and which pair reads which; -1: the block as it lies.
std::vector<int> find_mirrors(const Pass& pass, bool keys_are_turned, std::vector<Mirror>* mirrors) {
    std::vector<int> mirror_of;
    std::map<std::pair<int32_t, int32_t>, int> known;  // (block, turn) -> index
    for (const PassPair& pair : pass.pairs) {
        const int32_t turn = keys_are_turned ? pass.key_turn(pair) : 0;
        if (turn == 0) {
            mirror_of.push_back(-1);
            continue;
        }
        const auto [place, is_new] = known.emplace(std::pair(pair.block, turn), static_cast<int>(known.size()));
        mirror_of.push_back(place->second);
        if (is_new) {
            mirrors->push_back({pair.block, turn, nowhere, 0, 0, 0});
        }
    }
    return mirror_of;
}

// false: the cells are taken.
bool stay(const PassBlock& block, const KeptMirror& kept, MirrorPlaces* places, Mirror* mirror) {
    if (!places->take(kept.to, std::max(kept.room, block.n_cells)) && !places->take(kept.to, block.n_cells)) {
        return false;
    }
    mirror->to = kept.to;
    mirror->room = kept.room;
    mirror->n_values = std::min(kept.n, block.n_cells);
    mirror->n_keys = kept.turn == mirror->turn ? mirror->n_values : 0;
    return true;
}

// Leaves mirrors where kept ones of the same blocks are: first those that are turned as they were, whose keys are there
// too. What is kept of blocks that are not in this pass is not overwritten either.
void stay_in_place(const Pass& pass, const std::vector<KeptMirror>& kept, MirrorPlaces* places,
                   std::vector<Mirror>* mirrors) {
    std::vector<bool> is_done(kept.size(), false);
    for (const bool is_turned : {true, false}) {
        for (Mirror& mirror : *mirrors) {
            const PassBlock& block = pass.blocks[static_cast<size_t>(mirror.block)];
            for (size_t i = 0; i < kept.size() && mirror.to == nowhere; i++) {
                if (!is_done[i] && kept[i].from == block.begin && (!is_turned || kept[i].turn == mirror.turn)) {
                    is_done[i] = stay(block, kept[i], places, &mirror);
                }
            }
        }
    }
    for (const KeptMirror& other : kept) {
        if (!is_mirror_of(other, pass)) {
            places->take(other.to, other.room);
        }
    }
}

// The run of a group: of what its pairs read as it lies, and its mirrors; those without a place get one near. nullopt:
// no gap is long enough.
std::optional<FlashRun> plan_group(const Pass& pass, const PassGroup& group, const std::vector<int>& mirror_of,
                                   MirrorPlaces* places, std::vector<Mirror>* mirrors) {
    CellRange range;
    const auto is_own = [&](const Mirror& mirror) {
        return mirror.block >= group.first_block && mirror.block < group.first_block + group.n_blocks;
    };
    for (int32_t i = group.first_pair; i < group.first_pair + group.n_pairs; i++) {
        if (mirror_of[static_cast<size_t>(i)] < 0) {
            const PassBlock& block = pass.blocks[static_cast<size_t>(pass.pairs[static_cast<size_t>(i)].block)];
            range = range.with(block.begin, block.begin + block.n_cells);
        }
    }
    for (const Mirror& mirror : *mirrors) {
        if (is_own(mirror) && mirror.to != nowhere) {
            range = range.with(mirror.to, mirror.to + n_cells_of(pass, mirror));
        }
    }
    for (Mirror& mirror : *mirrors) {
        if (is_own(mirror) && mirror.to == nowhere) {
            const int64_t n = n_cells_of(pass, mirror);
            const std::optional<int64_t> to = places->place(n, range);
            if (!to) {
                return std::nullopt;
            }
            mirror.to = *to;
            mirror.room = room_for(n);
            range = range.with(*to, *to + n);
        }
    }
    const int64_t begin = range.begin / flash_step * flash_step;
    return FlashRun{begin, GGML_PAD(range.end - begin, flash_step)};
}

std::optional<FlashPlan> plan_runs(const Pass& pass, const BlockTable& table, const FlashRules& rules,
                                   const std::vector<KeptMirror>& kept) {
    FlashPlan plan = {};
    const std::vector<int> mirror_of = find_mirrors(pass, rules.keys_are_turned, &plan.mirrors);
    if (!plan.mirrors.empty() && !rules.may_mirror) {
        return std::nullopt;
    }
    MirrorPlaces places(table);
    stay_in_place(pass, kept, &places, &plan.mirrors);
    for (const PassGroup& group : pass.groups) {
        const std::optional<FlashRun> run = plan_group(pass, group, mirror_of, &places, &plan.mirrors);
        if (!run) {
            return std::nullopt;
        }
        plan.runs.push_back(*run);
    }
    for (size_t i = 0; i < pass.pairs.size(); i++) {
        plan.key_cell.push_back(mirror_of[i] < 0 ? pass.blocks[static_cast<size_t>(pass.pairs[i].block)].begin
                                                 : plan.mirrors[static_cast<size_t>(mirror_of[i])].to);
    }
    for (const Mirror& mirror : plan.mirrors) {
        const int64_t n = n_cells_of(pass, mirror);
        plan.n_mirrored += n;
        plan.n_keys += n - mirror.n_keys;
        plan.n_values += rules.has_unturned ? n - mirror.n_values : 0;
    }
    return plan;
}

}  // namespace

std::optional<FlashPlan> plan_flash(const Pass& pass, const BlockTable& table, const FlashRules& rules,
                                    const KeptMirrors& kept) {
    std::optional<FlashPlan> plan = plan_runs(pass, table, rules, kept.all());
    if (!kept.all().empty()) {
        // Where blocks have moved away from their mirrors, or no cells are left beside them, all are made anew.
        std::optional<FlashPlan> anew = plan_runs(pass, table, rules, {});
        if (!plan || (anew && n_cells_of(*anew) + anew->n_values < n_cells_of(*plan) + plan->n_values)) {
            plan = std::move(anew);
        }
    }
    return plan && is_worthwhile(pass, *plan) ? plan : std::nullopt;
}

}  // namespace hw
