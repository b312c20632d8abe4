#include "engine/blocks.h"

#include <algorithm>

#include "base/error.h"

namespace hw {

void Blocks::check_block(int32_t block) const {
    if (!table().contains(block)) {
        fail(HW_ERROR_ARGUMENT, "block %d does not exist: it was freed, or it is of another cache", block);
    }
}

int64_t Blocks::len(int32_t block) const {
    check_block(block);
    return table().run(block).len;
}

const std::vector<int32_t>& Blocks::tokens(int32_t block) const {
    check_block(block);
    return tokens_.at(block);
}

// The first table last: what is known of a block that it does not know does no harm, should it fail.
int32_t Blocks::add(bool is_anchored) {
    tokens_[next_id_] = {};
    maps_.add(next_id_, is_anchored);
    std::for_each(spaces_.rbegin(), spaces_.rend(), [&](CellSpace& space) { space.add(next_id_); });
    return next_id_++;
}

void Blocks::free(int32_t block) {
    check_block(block);
    for (CellSpace& space : spaces_) {
        space.remove(block);
    }
    tokens_.erase(block);
    maps_.remove(block);
}

int32_t Blocks::last_cut(int32_t block, int32_t n) const {
    if (n < 0 || n > len(block)) {
        fail(HW_ERROR_ARGUMENT, "token %d is not in a block of %d", n, static_cast<int>(len(block)));
    }
    const int64_t at = maps_.last_cut(block, n);
    const bool serves =
        std::all_of(spaces_.begin(), spaces_.end(), [&](const CellSpace& space) { return space.can_cut(block, at); });
    return serves ? static_cast<int32_t>(at) : 0;  // what windows would see before was dropped first
}

void Blocks::check_cut(int32_t block, int32_t n) const {
    maps_.check_cut(block, n);
    for (const CellSpace& space : spaces_) {
        if (!space.can_cut(block, n)) {
            fail(HW_ERROR_ARGUMENT,
                 "block %d cannot be cut at %d: what its sliding windows would see there was dropped", block, n);
        }
    }
}

void Blocks::mark(int32_t block) {
    check_block(block);
    maps_.mark(block);
}

void Blocks::truncate(int32_t block, int32_t n) {
    if (n < 0 || n > len(block)) {
        fail(HW_ERROR_ARGUMENT, "cannot keep %d tokens of a block of %d", n, static_cast<int>(len(block)));
    }
    check_cut(block, n);
    maps_.truncate(block, n);
    for (CellSpace& space : spaces_) {
        space.truncate(block, n);
    }
    tokens_.at(block).resize(static_cast<size_t>(n));
}

int32_t Blocks::split(int32_t block, int32_t n) {
    if (n < 0 || n > len(block)) {
        fail(HW_ERROR_ARGUMENT, "cannot split a block of %d tokens at %d", static_cast<int>(len(block)), n);
    }
    check_cut(block, n);
    std::vector<int32_t>& tokens = tokens_.at(block);
    const int32_t tail = next_id_;
    tokens_[tail] = std::vector<int32_t>(tokens.begin() + n, tokens.end());
    maps_.add(tail, maps_.is_anchored(block), maps_.of(block).size());
    std::for_each(spaces_.rbegin(), spaces_.rend(), [&](CellSpace& space) { space.add(tail); });
    next_id_++;
    for (CellSpace& space : spaces_) {
        space.split(block, n, tail);
    }
    maps_.split(block, n, tail);
    tokens.resize(static_cast<size_t>(n));
    return tail;
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
    for (const CellSpace& space : spaces_) {
        space.check_free(need);
    }
    for (const Growth& item : growth) {
        prepare_tokens(item.block, item.n);
    }
    for (CellSpace& space : spaces_) {
        space.make_room(growth);
    }
}

void Blocks::grow(int32_t block, const int32_t* tokens, int32_t n) {
    tokens_.at(block).insert(tokens_.at(block).end(), tokens, tokens + n);
    for (CellSpace& space : spaces_) {
        space.grow(block, n);
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
    const std::vector<CellSpace::Joined> joined = join(dst, src);
    for (size_t i = 0; i < spaces_.size(); i++) {
        spaces_[i].commit(dst, src, joined[i]);
    }
    std::vector<int32_t>& tokens = tokens_.at(src);
    tokens_.at(dst).insert(tokens_.at(dst).end(), tokens.begin(), tokens.end());
    tokens.clear();
    maps_.replace(dst, std::move(segments));
    maps_.replace(src, {});
}

// In all spaces, or in none.
std::vector<CellSpace::Joined> Blocks::join(int32_t dst, int32_t src) {
    std::vector<CellSpace::Joined> joined;
    joined.reserve(spaces_.size());
    try {
        for (CellSpace& space : spaces_) {
            joined.push_back(space.join(dst, src));
        }
    } catch (...) {
        for (size_t i = 0; i < joined.size(); i++) {
            spaces_[i].undo(src, joined[i]);
        }
        throw;
    }
    return joined;
}

// A new block whose cells `fill` writes, in each space.
template <typename Fill>
int32_t Blocks::add_filled(std::vector<int32_t> tokens, Segments segments, bool is_anchored, Fill fill) {
    for (const CellSpace& space : spaces_) {
        space.check_new(static_cast<int64_t>(tokens.size()));
    }
    const int32_t block = add(is_anchored);
    try {
        for (CellSpace& space : spaces_) {
            fill(space, block);
        }
    } catch (...) {
        free(block);
        throw;
    }
    tokens_.at(block) = std::move(tokens);
    maps_.replace(block, std::move(segments));
    return block;
}

int32_t Blocks::copy(int32_t block) {
    check_block(block);
    return add_filled(tokens_.at(block), maps_.of(block), maps_.is_anchored(block),
                      [&](CellSpace& space, int32_t made) { space.copy(made, block); });
}

int32_t Blocks::restore(std::vector<int32_t> tokens, int64_t origin, const std::byte* data, size_t n_bytes) {
    const int64_t n = static_cast<int64_t>(tokens.size());
    const std::byte* end = data + n_bytes;
    const std::byte* maps = data;
    for (const CellSpace& space : spaces_) {
        maps += space.checked_bytes(n, maps, static_cast<size_t>(end - maps));
    }
    if (!maps_.is_used() && maps != end) {
        fail(HW_ERROR_ARGUMENT, "these are no data of a block: the cells are not as many as the tokens");
    }
    bool is_anchored = false;
    Segments segments = maps_.from_bytes(maps, static_cast<size_t>(end - maps), n, &is_anchored);
    return add_filled(std::move(tokens), std::move(segments), is_anchored,
                      [&](CellSpace& space, int32_t made) { data += space.write(made, n, origin, data); });
}

size_t Blocks::n_bytes(int32_t block) const {
    check_block(block);
    size_t sum = maps_.n_bytes(block);
    for (const CellSpace& space : spaces_) {
        sum += space.n_bytes(block);
    }
    return sum;
}

void Blocks::read(int32_t block, std::byte* data) {
    check_block(block);
    for (CellSpace& space : spaces_) {
        space.read(block, data);
        data += space.n_bytes(block);
    }
    maps_.read(block, data);
}

void Blocks::set_origin(int32_t block, int64_t origin) {
    for (CellSpace& space : spaces_) {
        space.set_origin(block, origin);
    }
}

int64_t Blocks::n_moved() const {
    int64_t n = 0;
    for (const CellSpace& space : spaces_) {
        n += space.n_moved();
    }
    return n;
}

void Blocks::check() const {
    for (const CellSpace& space : spaces_) {
        space.check();
    }
    for (const auto& [block, run] : table().runs()) {
        if (tokens_.at(block).size() != static_cast<size_t>(run.len)) {
            fail(HW_ERROR_COMPUTE, "block %d has %d cells and %zu tokens", block, static_cast<int>(run.len),
                 tokens_.at(block).size());
        }
        for (const CellSpace& space : spaces_) {
            if (space.table().run(block).n_tokens() != run.len) {
                fail(HW_ERROR_COMPUTE, "block %d has %d cells, and other ones in layers with a window", block,
                     static_cast<int>(run.len));
            }
        }
        if (maps_.is_used() && maps_.last_cut(block, run.len) != run.len) {
            fail(HW_ERROR_COMPUTE, "block %d has %d cells and maps of other tokens", block, static_cast<int>(run.len));
        }
    }
}

}  // namespace hw
