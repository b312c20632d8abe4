#include "cache/kept-mirrors.h"

#include <algorithm>

namespace hw {

namespace {

// How many of n cells from `first` on stand before the first one of a range that is written.
int64_t n_before(int64_t first, int64_t n, int64_t begin, int64_t end) {
    return begin < first + n && first < end ? std::max<int64_t>(begin - first, 0) : n;
}

bool is_of_a_block(const KeptMirror& mirror, const BlockTable& table) {
    return std::any_of(table.runs().begin(), table.runs().end(), [&](const auto& entry) {
        return entry.second.begin <= mirror.from && mirror.from < entry.second.end();
    });
}

}  // namespace

bool is_mirror_of(const KeptMirror& mirror, const Pass& pass) {
    return std::any_of(pass.blocks.begin(), pass.blocks.end(),
                       [&](const PassBlock& block) { return block.begin == mirror.from; });
}

void KeptMirrors::overwritten(int64_t begin, int64_t n) {
    for (KeptMirror& mirror : mirrors_) {
        mirror.n = n_before(mirror.from, mirror.n, begin, begin + n);
        mirror.n = n_before(mirror.to, mirror.n, begin, begin + n);
    }
    mirrors_.erase(
        std::remove_if(mirrors_.begin(), mirrors_.end(), [](const KeptMirror& mirror) { return mirror.n == 0; }),
        mirrors_.end());
}

void KeptMirrors::tokens_overwritten(const Pass& pass) {
    for (size_t i = 0; i < pass.cells.size() && !mirrors_.empty(); i++) {
        overwritten(pass.cells[i], 1);
    }
}

void KeptMirrors::before(const FlashPlan& plan, const Pass& pass) {
    for (const Mirror& mirror : plan.mirrors) {
        overwritten(mirror.to, pass.blocks[static_cast<size_t>(mirror.block)].n_cells);
    }
}

void KeptMirrors::after(const FlashPlan& plan, const Pass& pass, const BlockTable& table) {
    mirrors_.erase(std::remove_if(mirrors_.begin(), mirrors_.end(),
                                  [&](const KeptMirror& mirror) {
                                      return is_mirror_of(mirror, pass) || !is_of_a_block(mirror, table);
                                  }),
                   mirrors_.end());
    for (const Mirror& mirror : plan.mirrors) {
        const PassBlock& block = pass.blocks[static_cast<size_t>(mirror.block)];
        mirrors_.push_back({block.begin, mirror.to, block.n_cells, mirror.room, mirror.turn});
    }
}

}  // namespace hw
