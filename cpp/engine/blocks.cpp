#include "engine/blocks.h"

#include <algorithm>

#include "base/error.h"

namespace hw {

Blocks::Blocks(int64_t n_ctx, int64_t n_cells, const ScratchCells& scratch, Cells& cells, BlockMaps maps)
    : n_ctx_(n_ctx), scratch_(scratch), cells_(cells), table_(n_cells), maps_(std::move(maps)) {}

void Blocks::check_block(int32_t block) const {
    if (!table_.contains(block)) {
        fail(HW_ERROR_ARGUMENT, "block %d does not exist: it was freed, or it is of another cache", block);
    }
}

int64_t Blocks::len(int32_t block) const {
    check_block(block);
    return table_.run(block).len;
}

const std::vector<int32_t>& Blocks::tokens(int32_t block) const {
    check_block(block);
    return tokens_.at(block);
}

// Tokens and maps first: those of a block that the table does not know do no harm, should it fail.
int32_t Blocks::add() {
    tokens_[table_.next_id()] = {};
    maps_.add(table_.next_id());
    return table_.add();
}

void Blocks::free(int32_t block) {
    check_block(block);
    table_.remove(block);
    tokens_.erase(block);
    maps_.remove(block);
}

int32_t Blocks::last_cut(int32_t block, int32_t n) const {
    if (n < 0 || n > len(block)) {
        fail(HW_ERROR_ARGUMENT, "token %d is not in a block of %d", n, static_cast<int>(len(block)));
    }
    return static_cast<int32_t>(maps_.last_cut(block, n));
}

void Blocks::mark(int32_t block) {
    check_block(block);
    maps_.mark(block);
}

void Blocks::truncate(int32_t block, int32_t n) {
    if (n < 0 || n > len(block)) {
        fail(HW_ERROR_ARGUMENT, "cannot keep %d tokens of a block of %d", n, static_cast<int>(len(block)));
    }
    maps_.check_cut(block, n);
    maps_.truncate(block, n);
    table_.set_len(block, n);
    tokens_.at(block).resize(static_cast<size_t>(n));
}

int32_t Blocks::split(int32_t block, int32_t n) {
    if (n < 0 || n > len(block)) {
        fail(HW_ERROR_ARGUMENT, "cannot split a block of %d tokens at %d", static_cast<int>(len(block)), n);
    }
    maps_.check_cut(block, n);
    std::vector<int32_t>& tokens = tokens_.at(block);
    tokens_[table_.next_id()] = std::vector<int32_t>(tokens.begin() + n, tokens.end());
    maps_.add(table_.next_id(), maps_.of(block).size());
    const int32_t tail = table_.split(block, n);
    maps_.split(block, n, tail);
    tokens.resize(static_cast<size_t>(n));
    return tail;
}

void Blocks::check_free(int64_t need) const {
    if (need > n_free()) {
        fail(HW_ERROR_CACHE_FULL, "the cache is full: %d cells are needed, %d of %d are free", static_cast<int>(need),
             static_cast<int>(n_free()), static_cast<int>(n_ctx_));
    }
}

// So that taking up n more tokens cannot fail. Doubled, as push_back does: reserve alone would copy all at each token.
void Blocks::prepare_tokens(int32_t block, int64_t n) {
    std::vector<int32_t>& tokens = tokens_.at(block);
    const size_t need = tokens.size() + static_cast<size_t>(n);
    if (need > tokens.capacity()) {
        tokens.reserve(std::max(need, 2 * tokens.capacity()));
    }
}

void Blocks::reserve(const std::vector<Growth>& growth) {
    int64_t need = 0;
    for (const Growth& item : growth) {
        need += item.n;
    }
    check_free(need);
    for (const Growth& item : growth) {
        prepare_tokens(item.block, item.n);
    }
    make_room(growth);
}

void Blocks::grow(int32_t block, const int32_t* tokens, int32_t n) {
    tokens_.at(block).insert(tokens_.at(block).end(), tokens, tokens + n);
    table_.set_len(block, table_.run(block).len + n);
}

void Blocks::make_room(const std::vector<Growth>& growth) {
    finish_moves();
    BlockTable planned = table_;
    const std::vector<BlockMove> moves = planned.reserve(growth);
    take_over(std::move(planned), moves, {});
    finish_moves();
}

// From here on the table says where cells are to be, and `unfinished_` what that takes. Nothing is lost if it throws.
void Blocks::take_over(BlockTable planned, const std::vector<BlockMove>& moves, Unfinished unfinished) {
    int64_t n_moved = 0;
    for (const BlockMove& move : moves) {
        const std::vector<CellMove> copies = as_copies(move.cells, scratch_);
        unfinished.copies.insert(unfinished.copies.end(), copies.begin(), copies.end());
        n_moved += move.cells.n;
    }
    std::swap(table_, planned);
    std::swap(unfinished_, unfinished);
    n_moved_ += n_moved;
}

void Blocks::finish_moves() {
    while (!unfinished_.copies.empty()) {
        cells_.copy(unfinished_.copies.front());
        unfinished_.copies.pop_front();
    }
    if (unfinished_.cells != nullptr) {
        cells_.write(unfinished_.begin, unfinished_.n, unfinished_.cells->data());
        unfinished_.cells = nullptr;
    }
}

void Blocks::append(int32_t dst, int32_t src) {
    check_block(dst);
    const int64_t n = len(src);
    if (dst == src) {
        fail(HW_ERROR_ARGUMENT, "block %d cannot be appended to itself", dst);
    }
    if (n == 0) {
        return;
    }
    prepare_tokens(dst, n);
    Segments segments = maps_.joined(dst, src);
    if (table_.run(dst).len == 0) {
        table_.hand_over(dst, src);
    } else {
        const int64_t key_turn = table_.run(dst).origin + table_.run(dst).len - table_.run(src).origin;
        if (n <= table_.n_free()) {
            make_room({{dst, n}});
            cells_.turn({table_.run(src).begin, table_.run(dst).end(), n}, key_turn);
        } else {
            move_by_host(dst, src, key_turn);
        }
        table_.set_len(src, 0);
        table_.set_len(dst, table_.run(dst).len + n);
    }
    std::vector<int32_t>& joined = tokens_.at(src);
    tokens_.at(dst).insert(tokens_.at(dst).end(), joined.begin(), joined.end());
    joined.clear();
    maps_.replace(dst, std::move(segments));
    maps_.replace(src, {});
}

// Moves src to the cells behind dst, where it does not fit beside itself, and turns its keys on there.
void Blocks::move_by_host(int32_t dst, int32_t src, int64_t key_turn) {
    finish_moves();
    const Run step = table_.run(src);
    const auto original = std::make_shared<Bytes>(cells_.n_bytes(step.len));
    cells_.read(step.begin, step.len, original->data());

    BlockTable planned = table_;
    planned.set_len(src, 0);
    const std::vector<BlockMove> moves = planned.reserve({{dst, step.len}});
    planned.put_behind(src, step.len, step.origin, dst);
    const int64_t begin = planned.run(src).begin;
    take_over(std::move(planned), moves, {{}, original, begin, step.len});
    finish_moves();
    try {
        cells_.turn({begin, begin, step.len}, key_turn);
    } catch (...) {
        cells_.write(begin, step.len, original->data());
        throw;
    }
}

// A new block whose cells `fill` writes, from its first one on.
template <typename Fill>
int32_t Blocks::add_filled(std::vector<int32_t> tokens, int64_t origin, Segments segments, Fill fill) {
    const int64_t n = static_cast<int64_t>(tokens.size());
    check_free(n);
    const int32_t block = add();
    try {
        if (n > 0) {
            make_room({{block, n}});
            fill(table_.run(block).begin);
        }
    } catch (...) {
        free(block);
        throw;
    }
    table_.set_origin(block, origin);
    table_.set_len(block, n);
    tokens_.at(block) = std::move(tokens);
    maps_.replace(block, std::move(segments));
    return block;
}

int32_t Blocks::copy(int32_t block) {
    const int64_t n = len(block);
    return add_filled(tokens_.at(block), table_.run(block).origin, maps_.of(block),
                      [&](int64_t begin) { cells_.copy({table_.run(block).begin, begin, n}); });
}

int32_t Blocks::restore(std::vector<int32_t> tokens, int64_t origin, const std::byte* data, size_t n_bytes) {
    const int64_t n = static_cast<int64_t>(tokens.size());
    const size_t n_of_cells = cells_.n_bytes(n);
    if (n_bytes < n_of_cells || (!maps_.is_used() && n_bytes > n_of_cells)) {
        fail(HW_ERROR_ARGUMENT, "these are no data of a block: the cells are not as many as the tokens");
    }
    if (!cells_.can_be_stored(n, data)) {
        fail(HW_ERROR_ARGUMENT, "these are no data of a block: a cell holds an infinity, a NaN, or too large a number");
    }
    Segments segments = maps_.from_bytes(data + n_of_cells, n_bytes - n_of_cells, n);
    return add_filled(std::move(tokens), origin, std::move(segments),
                      [&](int64_t begin) { cells_.write(begin, n, data); });
}

void Blocks::read(int32_t block, std::byte* data) {
    check_block(block);
    finish_moves();
    cells_.read(table_.run(block).begin, table_.run(block).len, data);
    maps_.read(block, data + cells_.n_bytes(table_.run(block).len));
}

void Blocks::check() const {
    const char* fault = table_.check();
    if (fault != nullptr) {
        fail(HW_ERROR_COMPUTE, "the table of blocks is broken: %s", fault);
    }
    for (const auto& [block, run] : table_.runs()) {
        if (tokens_.at(block).size() != static_cast<size_t>(run.len)) {
            fail(HW_ERROR_COMPUTE, "block %d has %d cells and %zu tokens", block, static_cast<int>(run.len),
                 tokens_.at(block).size());
        }
        if (maps_.is_used() && maps_.last_cut(block, run.len) != run.len) {
            fail(HW_ERROR_COMPUTE, "block %d has %d cells and maps of other tokens", block, static_cast<int>(run.len));
        }
    }
}

}  // namespace hw
