#include "attention/flash-plan.h"

#include <algorithm>
#include <map>

namespace hw {

namespace {

struct Range {
    int64_t begin = 0;
    int64_t end = 0;

    int64_t size() const { return end - begin; }
    Range with(int64_t first, int64_t last) const {
        return size() == 0 ? Range{first, last} : Range{std::min(begin, first), std::max(end, last)};
    }
};

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
    int64_t n_cells = 0;
    for (const FlashRun& run : plan.runs) {
        n_cells += run.n_cells;
    }
    return n_cells + cost_of_mirrored * plan.n_mirrored <= cost_of_seen * n_seen + cost_of_operations;
}

// The mirrors that the pairs need (where each goes: later), and which pair reads which; -1: the block as it lies.
std::vector<int> find_mirrors(const Pass& pass, bool keys_are_turned, FlashPlan* plan) {
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
            plan->mirrors.push_back({pair.block, turn, 0});
            plan->n_mirrored += pass.blocks[static_cast<size_t>(pair.block)].n_cells;
        }
    }
    return mirror_of;
}

// Takes n cells of the gaps, where they lengthen the range least; false: no gap is long enough.
bool place(std::vector<FreeRun>* gaps, int64_t n, Range* range, int64_t* begin) {
    std::optional<Range> best;
    FreeRun* best_gap = nullptr;
    for (FreeRun& gap : *gaps) {
        if (gap.n >= n) {
            const bool is_left = range->size() > 0 && gap.begin < range->begin;
            const int64_t first = is_left ? gap.begin + gap.n - n : gap.begin;
            const Range longer = range->with(first, first + n);
            if (!best || longer.size() < best->size()) {
                best = longer;
                best_gap = &gap;
                *begin = first;
            }
        }
    }
    if (!best) {
        return false;
    }
    *range = *best;
    // Mirrors lie at one of the gap's ends.
    best_gap->begin += *begin == best_gap->begin ? n : 0;
    best_gap->n -= n;
    return true;
}

// The run of a group: of what its pairs read as it lies, and its mirrors, which are put near. nullopt: no gap is long
// enough.
std::optional<FlashRun> plan_group(const Pass& pass, const PassGroup& group, const std::vector<int>& mirror_of,
                                   std::vector<FreeRun>* gaps, std::vector<Mirror>* mirrors) {
    Range range;
    int64_t n_mirrored = 0;
    for (int32_t i = group.first_pair; i < group.first_pair + group.n_pairs; i++) {
        if (mirror_of[static_cast<size_t>(i)] < 0) {
            const PassBlock& block = pass.blocks[static_cast<size_t>(pass.pairs[static_cast<size_t>(i)].block)];
            range = range.with(block.begin, block.begin + block.n_cells);
        }
    }
    const auto is_own = [&](const Mirror& mirror) {
        return mirror.block >= group.first_block && mirror.block < group.first_block + group.n_blocks;
    };
    for (const Mirror& mirror : *mirrors) {
        n_mirrored += is_own(mirror) ? pass.blocks[static_cast<size_t>(mirror.block)].n_cells : 0;
    }
    int64_t to = 0;
    if (n_mirrored > 0 && !place(gaps, n_mirrored, &range, &to)) {
        return std::nullopt;
    }
    for (Mirror& mirror : *mirrors) {
        if (is_own(mirror)) {
            mirror.to = to;
            to += pass.blocks[static_cast<size_t>(mirror.block)].n_cells;
        }
    }
    const int64_t begin = range.begin / flash_step * flash_step;
    return FlashRun{begin, GGML_PAD(range.end - begin, flash_step)};
}

}  // namespace

int64_t padded_mirrors(int64_t n_mirrored) {
    int64_t step = 64;
    while (4 * step < n_mirrored) {
        step *= 2;
    }
    return GGML_PAD(n_mirrored, step);
}

std::optional<FlashPlan> plan_flash(const Pass& pass, const BlockTable& table, const FlashRules& rules) {
    FlashPlan plan = {};
    const std::vector<int> mirror_of = find_mirrors(pass, rules.keys_are_turned, &plan);
    if (plan.n_mirrored > 0 && !rules.may_mirror) {
        return std::nullopt;
    }
    std::vector<FreeRun> gaps = table.free_runs();
    for (const PassGroup& group : pass.groups) {
        const std::optional<FlashRun> run = plan_group(pass, group, mirror_of, &gaps, &plan.mirrors);
        if (!run) {
            return std::nullopt;
        }
        plan.runs.push_back(*run);
    }
    for (size_t i = 0; i < pass.pairs.size(); i++) {
        plan.key_cell.push_back(mirror_of[i] < 0 ? pass.blocks[static_cast<size_t>(pass.pairs[i].block)].begin
                                                 : plan.mirrors[static_cast<size_t>(mirror_of[i])].to);
    }
    return is_worthwhile(pass, plan) ? std::optional<FlashPlan>(plan) : std::nullopt;
}

}  // namespace hw
