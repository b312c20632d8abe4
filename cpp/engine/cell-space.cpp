#include "engine/cell-space.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace hw {

CellSpace::CellSpace(const SpaceSize& size, Cells& cells) : size_(size), cells_(cells), table_(0) {
    if (!open(size.n_first)) {
        fail(HW_ERROR_MEMORY, "no memory for the keys and values of %d tokens: ask for a smaller n_ctx",
             static_cast<int>(size.n_first));
    }
}

// As many of n_usable as these, and of the others in proportion to what each is for. false: there is no memory.
bool CellSpace::open(int64_t n_usable) {
    const int64_t n_cells = n_usable + size_.n_cells - size_.n_usable;
    const int64_t n_all = n_usable == size_.n_usable ? size_.n_all : std::min(n_cells + read_beyond, size_.n_all);
    if (n_all > n_opened_ && !cells_.open(n_opened_, n_all - n_opened_)) {
        return false;
    }
    n_opened_ = std::max(n_opened_, n_all);
    n_open_ = n_usable;
    table_.set_n_cells(n_cells);
    return true;
}

int64_t CellSpace::n_needed() const {
    int64_t n = 0;
    for (const auto& entry : table_.runs()) {
        n += n_needed(entry.second);
    }
    return n;
}

int64_t CellSpace::n_free() const { return size_.n_usable - n_needed(); }

void CellSpace::check_free(int64_t need) const {
    if (need > n_free()) {
        fail(HW_ERROR_CACHE_FULL, "the cache is full: %d cells are needed, %d of %d are free%s", static_cast<int>(need),
             static_cast<int>(n_free()), static_cast<int>(size_.n_usable),
             size_.window > 0 ? " in layers with a sliding window, of which n_windows says how many there are" : "");
    }
}

bool CellSpace::can_cut(int32_t block, int64_t n) const {
    const Run& run = table_.run(block);
    return n == 0 || run.first == 0 || n >= run.first + size_.window;
}

// Some more than is needed: in a tight table blocks move often.
void CellSpace::open_for(int64_t need) {
    const int64_t wanted = std::max(n_needed() + need, std::min(n_held() + need, size_.n_kept));
    const int64_t roomy = std::min(wanted + wanted / 8, size_.n_usable);
    if (roomy <= n_open_) {
        return;
    }
    finish_moves();  // scratch cells may lie among those that are opened
    if (!open(roomy) && wanted > n_open_) {
        fail(HW_ERROR_CACHE_FULL,
             "the cache is full: %d cells are needed, %d are free, and there is no memory for more",
             static_cast<int>(need), static_cast<int>(n_open_ - wanted + need));
    }
}

// Some more than is needed, lest every pass drop, and move, a few cells.
void CellSpace::drop_for(int64_t need) {
    if (!size_.drops || n_held() + need <= n_open_) {
        return;
    }
    const auto beyond = [&](int32_t block) { return table_.run(block).len - n_needed(table_.run(block)); };
    std::vector<int32_t> blocks;
    for (const auto& entry : table_.runs()) {
        blocks.push_back(entry.first);
    }
    std::sort(blocks.begin(), blocks.end(), [&](int32_t a, int32_t b) { return beyond(a) > beyond(b); });
    for (const int32_t block : blocks) {
        const int64_t too_many = n_held() + need + n_open_ / 8 - n_open_;
        table_.drop(block, std::clamp<int64_t>(too_many, 0, beyond(block)));
    }
}

void CellSpace::make_room(const std::vector<Growth>& growth) {
    int64_t need = 0;
    for (const Growth& item : growth) {
        need += item.n;
    }
    open_for(need);
    drop_for(need);
    arrange(growth);
}

void CellSpace::arrange(const std::vector<Growth>& growth) {
    finish_moves();
    BlockTable planned = table_;
    const std::vector<BlockMove> moves = planned.reserve(growth);
    take_over(std::move(planned), moves, {});
    finish_moves();
}

// From here on the table says where cells are to be, and `unfinished_` what that takes. Nothing is lost if it throws.
void CellSpace::take_over(BlockTable planned, const std::vector<BlockMove>& moves, Unfinished unfinished) {
    int64_t n_moved = 0;
    for (const BlockMove& move : moves) {
        const std::vector<CellMove> copies = as_copies(move.cells, size_.scratch);
        unfinished.copies.insert(unfinished.copies.end(), copies.begin(), copies.end());
        n_moved += move.cells.n;
    }
    std::swap(table_, planned);
    std::swap(unfinished_, unfinished);
    n_moved_ += n_moved;
}

void CellSpace::finish_moves() {
    while (!unfinished_.copies.empty()) {
        cells_.copy(unfinished_.copies.front());
        unfinished_.copies.pop_front();
    }
    if (unfinished_.cells != nullptr) {
        cells_.write(unfinished_.begin, unfinished_.n, unfinished_.cells->data(), unfinished_.n);
        unfinished_.cells = nullptr;
    }
}

CellSpace::Joined CellSpace::join(int32_t dst, int32_t src) {
    finish_moves();
    if (table_.run(dst).len == 0) {
        return {table_.run(src), nullptr};
    }
    const Run step = table_.run(src);
    const int64_t key_turn = table_.run(dst).origin + table_.run(dst).len + step.first - step.origin;
    if (step.first > 0) {  // of dst no window sees anything any more
        Joined joined = turn_in_place(src, key_turn);
        joined.run.first += table_.run(dst).n_tokens();
        return joined;
    }
    if (step.len > table_.n_free()) {
        return join_by_host(dst, src, key_turn);
    }
    arrange({{dst, step.len}});
    Run run = table_.run(dst);
    cells_.turn({table_.run(src).begin, run.end(), step.len}, key_turn);
    run.len += step.len;
    return {run, nullptr};
}

CellSpace::Joined CellSpace::turn_in_place(int32_t src, int64_t key_turn) {
    Run run = table_.run(src);
    const auto old = std::make_shared<Bytes>(cells_.n_bytes(run.len));
    cells_.read(run.begin, run.len, old->data());
    try {
        cells_.turn({run.begin, run.begin, run.len}, key_turn);
    } catch (...) {
        cells_.write(run.begin, run.len, old->data(), run.len);
        throw;
    }
    run.origin += key_turn;
    return {run, old};
}

// Moves src to the cells behind dst, where it does not fit beside itself, and turns its keys on there.
CellSpace::Joined CellSpace::join_by_host(int32_t dst, int32_t src, int64_t key_turn) {
    const Run step = table_.run(src);
    const auto original = std::make_shared<Bytes>(cells_.n_bytes(step.len));
    cells_.read(step.begin, step.len, original->data());

    BlockTable planned = table_;
    planned.set_run(src, {0, 0, 0, 0});
    const std::vector<BlockMove> moves = planned.reserve({{dst, step.len}});
    planned.put_behind(src, step, dst);
    const int64_t begin = planned.run(src).begin;
    take_over(std::move(planned), moves, {{}, original, begin, step.len});
    finish_moves();
    Joined joined = turn_in_place(src, key_turn);
    joined.run = table_.run(dst);
    joined.run.len += step.len;
    return joined;
}

void CellSpace::undo(int32_t src, const Joined& joined) {
    if (joined.old != nullptr) {
        const Run& run = table_.run(src);
        cells_.write(run.begin, run.len, joined.old->data(), run.len);
    }
}

void CellSpace::commit(int32_t dst, int32_t src, const Joined& joined) {
    table_.set_run(dst, joined.run);
    table_.set_run(src, {0, 0, 0, 0});
    table_.set_tokens(dst, joined.run.n_tokens());  // what was reserved beyond is not
}

// Of n cells that a new block could have, how many it gets.
int64_t CellSpace::n_of_new(int64_t n) const {
    return size_.drops && n_held() + n > n_open_ ? std::min(n, size_.window) : n;
}

void CellSpace::copy(int32_t block, int32_t from) {
    const int64_t n = n_of_new(table_.run(from).len);
    if (n > 0) {
        make_room({{block, n}});
        cells_.copy({table_.run(from).end() - n, table_.run(block).begin, n});
    }
    const Run& source = table_.run(from);
    const int64_t n_left = source.len - n;
    table_.set_run(block, {table_.run(block).begin, n, n, source.origin + n_left, source.first + n_left});
}

namespace {

// Before the cells of layers with a window: how many tokens were dropped.
int64_t read_first(const std::byte* data) {
    int64_t first = 0;
    std::memcpy(&first, data, sizeof(first));
    return first;
}

}  // namespace

size_t CellSpace::n_bytes(int32_t block) const {
    return (size_.window > 0 ? sizeof(int64_t) : 0) + cells_.n_bytes(table_.run(block).len);
}

void CellSpace::read(int32_t block, std::byte* data) {
    finish_moves();
    const Run& run = table_.run(block);
    if (size_.window > 0) {
        std::memcpy(data, &run.first, sizeof(run.first));
        data += sizeof(run.first);
    }
    cells_.read(run.begin, run.len, data);
}

size_t CellSpace::checked_bytes(int64_t n_tokens, const std::byte* data, size_t n_bytes) const {
    int64_t first = 0;
    size_t n_before = 0;
    if (size_.window > 0) {
        n_before = sizeof(first);
        first = n_bytes < n_before ? -1 : read_first(data);
        if (first < 0 || (first > 0 && first > n_tokens - size_.window)) {
            fail(HW_ERROR_ARGUMENT, "these are no data of a block: its windows are not those of this model");
        }
    }
    const size_t need = n_before + cells_.n_bytes(n_tokens - first);
    if (n_bytes < need) {
        fail(HW_ERROR_ARGUMENT, "these are no data of a block: the cells are not as many as the tokens");
    }
    if (!cells_.can_be_stored(n_tokens - first, data + n_before)) {
        fail(HW_ERROR_ARGUMENT, "these are no data of a block: a cell holds an infinity, a NaN, or too large a number");
    }
    return need;
}

size_t CellSpace::write(int32_t block, int64_t n_tokens, int64_t origin, const std::byte* data) {
    const bool is_windowed = size_.window > 0;
    const int64_t n_given = n_tokens - (is_windowed ? read_first(data) : 0);
    const size_t n_before = is_windowed ? sizeof(int64_t) : 0;
    const int64_t n = n_of_new(n_given);
    if (n > 0) {
        make_room({{block, n}});
        cells_.write(table_.run(block).begin, n, data + n_before, n_given);
    }
    const int64_t first = n_tokens - n;
    table_.set_run(block, {table_.run(block).begin, n, n, origin + first, first});
    return n_before + cells_.n_bytes(n_given);
}

void CellSpace::check() const {
    const char* fault = table_.check();
    if (fault != nullptr) {
        fail(HW_ERROR_COMPUTE, "the table of blocks is broken: %s", fault);
    }
    for (const auto& [block, run] : table_.runs()) {
        if (run.first > 0 && (size_.window == 0 || run.len < size_.window)) {
            fail(HW_ERROR_COMPUTE, "block %d has dropped cells that a window sees", block);
        }
    }
}

}  // namespace hw
