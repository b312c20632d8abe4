#include "cache/block-table.h"

#include <algorithm>

namespace hw {

namespace {

// Cells left free before a block that finds a new place, for the block before it to grow into. Few: see free_runs().
constexpr int64_t slack = 128;
// A block of so many cells stays where it is, and begins where there is most room.
constexpr int64_t long_block = 64;
// Beyond so many cells a short block is moved to those that it is read with.
constexpr int64_t far = 1024;

// How many cells lie between them.
int64_t distance(const FreeRun& cells, const Run& run) {
    return std::max({int64_t{0}, cells.begin - run.end(), run.begin - cells.begin - cells.n});
}

FreeRun largest(const std::vector<FreeRun>& gaps) {
    const auto found =
        std::max_element(gaps.begin(), gaps.end(), [](const FreeRun& a, const FreeRun& b) { return a.n < b.n; });
    return found != gaps.end() ? *found : FreeRun{0, 0};
}

}  // namespace

void BlockTable::set_tokens(int32_t block, int64_t n) {
    Run& own = runs_.at(block);
    own.first = n == 0 ? 0 : own.first;
    own.len = own.reserved = n - own.first;
}

void BlockTable::drop(int32_t block, int64_t n) {
    Run& own = runs_.at(block);
    own = {own.begin + n, own.len - n, own.len - n, own.origin + n, own.first + n};
}

void BlockTable::split(int32_t block, int64_t n, int32_t tail) {
    Run& own = runs_.at(block);
    const int64_t cut = std::max<int64_t>(n - own.first, 0);
    runs_.at(tail) = {own.begin + cut, own.len - cut, own.len - cut, own.origin + cut, own.first + cut - n};
    set_tokens(block, n);
}

void BlockTable::put_behind(int32_t block, const Run& run, int32_t other) {
    Run& before = runs_.at(other);
    before.reserved = before.len;
    runs_.at(block) = {before.end(), run.len, run.len, run.origin, run.first};
}

int64_t BlockTable::n_free() const {
    int64_t used = 0;
    for (const auto& entry : runs_) {
        used += entry.second.len;
    }
    return n_cells_ - used;
}

// Ids of the blocks that hold or are promised cells, in the order of their cells.
std::vector<int32_t> BlockTable::by_place() const {
    std::vector<int32_t> ids;
    for (const auto& entry : runs_) {
        if (entry.second.reserved > 0) {
            ids.push_back(entry.first);
        }
    }
    std::sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return run(a).begin < run(b).begin; });
    return ids;
}

// Grows a run into the free cells behind it.
bool BlockTable::extend(Run* own, int64_t need) const {
    if (own->reserved == 0 || own->begin + need > n_cells_) {
        return false;
    }
    for (const auto& entry : runs_) {
        const Run& other = entry.second;
        if (other.reserved > 0 && other.begin > own->begin && other.begin < own->begin + need) {
            return false;
        }
    }
    own->reserved = need;
    return true;
}

std::vector<FreeRun> BlockTable::free_runs() const {
    std::vector<FreeRun> result;
    int64_t begin = 0;
    for (int32_t id : by_place()) {
        if (run(id).begin > begin) {
            result.push_back({begin, run(id).begin - begin});
        }
        begin = std::max(begin, run(id).begin + run(id).reserved);
    }
    if (begin < n_cells_) {
        result.push_back({begin, n_cells_ - begin});
    }
    return result;
}

// A block that has cells, nullptr: it is none.
const Run* BlockTable::known(int32_t block) const {
    const auto found = runs_.find(block);
    return found != runs_.end() && found->second.reserved > 0 ? &found->second : nullptr;
}

// Of the gaps that leave room on both sides, the one nearest to `near`, the first one if that is nullptr; if there is
// none, the largest.
FreeRun BlockTable::choose_gap(int64_t need, const Run* near) const {
    FreeRun best = {0, 0};
    const auto is_roomy = [&](const FreeRun& gap) { return gap.n >= need + 2 * slack; };
    const auto distance_of = [&](const FreeRun& gap) { return near != nullptr ? distance(gap, *near) : gap.begin; };
    for (const FreeRun& gap : free_runs()) {
        const bool is_better = is_roomy(best) ? is_roomy(gap) && distance_of(gap) < distance_of(best) : gap.n > best.n;
        best = is_better ? gap : best;
    }
    return best;
}

// Its own cells may be part of the gap. false: no gap is long enough.
bool BlockTable::move_to_gap(int32_t block, int64_t need, int32_t near, std::vector<BlockMove>* moves) {
    Run& own = runs_.at(block);
    const int64_t reserved = own.reserved;
    own.reserved = 0;
    const Run* beside = known(near);
    const bool is_alone = beside == nullptr && own.len == 0 && need >= long_block;
    const FreeRun gap = is_alone ? largest(free_runs()) : choose_gap(need, beside);
    if (gap.n < need) {
        own.reserved = reserved;
        return false;
    }
    const int64_t left = gap.n - need;
    int64_t begin = gap.begin + (is_alone ? left / 2 : std::min(left / 2, slack));
    if (beside != nullptr && gap.begin < beside->begin) {
        begin = gap.begin + left - std::min(left / 2, slack);
    } else if (gap.begin == 0) {
        begin = 0;
    }
    if (own.len > 0 && begin != own.begin) {
        moves->push_back({block, {own.begin, begin, own.len}});
    }
    own.begin = begin;
    own.reserved = need;
    return true;
}

// Moves a short block that lies far from what it is read with, if there is a place that is much nearer.
void BlockTable::bring_near(const Growth& item, std::vector<BlockMove>* moves) {
    const Run& own = run(item.block);
    const Run* near = known(item.near);
    if (near == nullptr || own.len == 0 || own.len >= long_block) {
        return;
    }
    const int64_t before = distance({own.begin, own.len}, *near);
    if (before > far && 2 * distance(choose_gap(own.len + item.n, near), *near) < before) {
        move_to_gap(item.block, own.len + item.n, item.near, moves);
    }
}

// Moves what stands in the cells that the block wants to grow into, where that is less than to move the block.
bool BlockTable::clear_way(int32_t block, int64_t need, std::vector<BlockMove>* moves) {
    Run& own = runs_.at(block);
    std::vector<int32_t> in_way;
    int64_t n_in_way = 0;
    for (int32_t id : by_place()) {
        if (run(id).begin > own.begin && run(id).begin < own.begin + need) {
            in_way.push_back(id);
            n_in_way += run(id).len;
        }
    }
    if (own.reserved == 0 || own.begin + need > n_cells_ || n_in_way >= own.len) {
        return false;
    }
    own.reserved = need;
    for (int32_t id : in_way) {
        if (!move_to_gap(id, run(id).reserved, block, moves)) {
            own.reserved = own.len;
            return false;
        }
    }
    return true;
}

// All blocks side by side in their present order; what is free is shared out, mostly to the blocks that grow now.
void BlockTable::pack(const std::vector<Growth>& growth, std::vector<BlockMove>* moves) {
    constexpr int64_t weight_growing = 4;
    constexpr int64_t weight_resting = 1;
    std::map<int32_t, int64_t> grows;
    int64_t free = n_free();
    for (const Growth& item : growth) {
        grows[item.block] = item.n;
        free -= item.n;
    }
    std::vector<int32_t> order = by_place();
    for (const Growth& item : growth) {
        if (run(item.block).reserved == 0) {
            order.push_back(item.block);
        }
    }
    int64_t weights = 0;
    for (int32_t id : order) {
        weights += grows[id] > 0 ? weight_growing : weight_resting;
    }
    std::vector<BlockMove> to_left;
    std::vector<BlockMove> to_right;
    int64_t place = 0;
    for (int32_t id : order) {
        Run& own = runs_.at(id);
        if (own.len > 0 && place != own.begin) {
            (place < own.begin ? to_left : to_right).push_back({id, {own.begin, place, own.len}});
        }
        own = {place, own.len, own.len + grows[id], own.origin, own.first};
        place += own.reserved + free * (grows[id] > 0 ? weight_growing : weight_resting) / weights;
    }
    // Left-moving runs from the left on, then right-moving ones from the right on: none is overwritten before it moved.
    moves->insert(moves->end(), to_left.begin(), to_left.end());
    moves->insert(moves->end(), to_right.rbegin(), to_right.rend());
}

std::vector<BlockMove> BlockTable::reserve(const std::vector<Growth>& growth) {
    for (auto& entry : runs_) {
        entry.second.reserved = entry.second.len;
    }
    std::vector<BlockMove> moves;
    for (const Growth& item : growth) {
        Run& own = runs_.at(item.block);
        const int64_t need = own.len + item.n;
        if (need == 0) {
            continue;
        }
        bring_near(item, &moves);
        if (!extend(&own, need) && !clear_way(item.block, need, &moves) &&
            !move_to_gap(item.block, need, item.near, &moves)) {
            pack(growth, &moves);
            break;
        }
    }
    return moves;
}

const char* BlockTable::check() const {
    int64_t end = 0;
    for (int32_t id : by_place()) {
        if (run(id).begin < end) {
            return "two blocks overlap, or one begins before cell 0";
        }
        if (run(id).len > run(id).reserved) {
            return "a block is longer than what was reserved for it";
        }
        end = run(id).begin + run(id).reserved;
    }
    return end > n_cells_ ? "a block ends after the last cell" : nullptr;
}

}  // namespace hw
