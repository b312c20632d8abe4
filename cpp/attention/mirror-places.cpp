#include "attention/mirror-places.h"

#include <algorithm>

namespace hw {

namespace {

// Cells left free behind a block for it to grow into.
constexpr int64_t growth = 64;

}  // namespace

CellRange CellRange::with(int64_t first, int64_t last) const {
    return size() == 0 ? CellRange{first, last} : CellRange{std::min(begin, first), std::max(end, last)};
}

int64_t room_for(int64_t n) { return n + n / 4 + 16; }

MirrorPlaces::MirrorPlaces(const BlockTable& table) {
    for (const FreeRun& run : table.free_runs()) {
        gaps_.push_back({run.begin, run.n, run.begin > 0});
    }
}

bool MirrorPlaces::take(int64_t begin, int64_t n) {
    const auto gap = std::find_if(gaps_.begin(), gaps_.end(), [&](const Gap& candidate) {
        return candidate.begin <= begin && begin + n <= candidate.begin + candidate.n;
    });
    if (gap == gaps_.end()) {
        return false;
    }
    const Gap behind = {begin + n, gap->begin + gap->n - begin - n, false};
    gap->n = begin - gap->begin;
    if (behind.n > 0) {
        gaps_.push_back(behind);
    }
    return true;
}

std::optional<int64_t> MirrorPlaces::place(int64_t n, const CellRange& range) {
    const int64_t room = room_for(n);
    if (const auto begin = find(room, growth, range)) {
        take(*begin, room);
        return begin;
    }
    const auto begin = find(n, 0, range);
    if (begin) {
        take(*begin, n);
    }
    return begin;
}

// distance: from a block that ends where a gap begins.
std::optional<int64_t> MirrorPlaces::find(int64_t n, int64_t distance, const CellRange& range) const {
    std::optional<int64_t> best;
    for (const Gap& gap : gaps_) {
        const int64_t least = gap.begin + (gap.is_behind_block ? distance : 0);
        const int64_t most = gap.begin + gap.n - n;
        if (least > most) {
            continue;
        }
        const bool is_right = range.size() == 0 || gap.begin >= range.end;
        const int64_t first = is_right ? least : most;
        if (!best || range.with(first, first + n).size() < range.with(*best, *best + n).size()) {
            best = first;
        }
    }
    return best;
}

}  // namespace hw
