// Blocks on cells that fail: any sequence of operations, and a device that fails at any step and leaves what it was to
// write in disorder. Whatever fails, all blocks hold what they held. Prints the first fault and returns 1.
//
// A cell is two numbers: the token it was made from, and the position its key is rotated to. Every second trial has
// layers with a sliding window too.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <stdexcept>

#include "base/error.h"
#include "engine/blocks.h"

// There are no recurrent layers here, and none of their kernels, which want flags of their own.
size_t hw::map_floats(const std::vector<Recurrence>& recurrences) { return recurrences.size(); }
size_t hw::state_floats(const std::vector<Recurrence>& recurrences) { return recurrences.size(); }
size_t hw::row_floats(const std::vector<Recurrence>& recurrences) { return recurrences.size(); }
void hw::join_runs(const Recurrence&, const std::vector<RecurrentRun>&, float*) { std::abort(); }
void hw::copy_rows(const Recurrence&, const RecurrentRun&, const RecurrentRun&, float*) { std::abort(); }

namespace {

struct Cell {
    int32_t token;
    int32_t position;
};

constexpr int64_t n_others = 4;  // behind those of a table: scratch cells

// Steps of a device, at one of which it fails.
struct Steps {
    int64_t n = 0;
    int64_t fails_at = -1;
    bool fails_on = false;  // at every step from there on
};

// Cells of a device that then has written some of them, and damaged one.
class FailingCells : public hw::Cells {
  public:
    FailingCells(int64_t n, Steps& steps) : cells_(static_cast<size_t>(n), {-1, -1}), steps_(steps) {}

    void copy(const hw::CellMove& move) override { turn(move, 0); }

    void turn(const hw::CellMove& move, int64_t distance) override {
        if (move.from != move.to && std::abs(move.from - move.to) < move.n) {
            throw std::logic_error("a copy whose cells overlap");
        }
        const bool fails = steps_.n++ == steps_.fails_at;
        const int64_t n = fails ? move.n / 2 : move.n;
        for (int64_t i = 0; i < n; i++) {
            Cell cell = at(move.from + i);
            cell.position += static_cast<int32_t>(distance);
            at(move.to + i) = cell;
        }
        if (fails) {
            at(move.to + n) = {-7, -7};
            steps_.fails_at = steps_.fails_on ? steps_.fails_at + 1 : -1;
            hw::fail(HW_ERROR_COMPUTE, "the device failed");
        }
    }

    bool open(int64_t begin, int64_t n) override {
        if (begin != n_open_) {
            throw std::logic_error("cells are opened twice, or not in their order");
        }
        if (begin > 0 && steps_.n % 3 == 0) {
            return false;
        }
        n_open_ += n;
        return true;
    }

    size_t n_bytes(int64_t n) const override { return static_cast<size_t>(n) * sizeof(Cell); }
    void read(int64_t begin, int64_t n, std::byte* data) const override {
        std::copy_n(cells_.begin() + begin, n, reinterpret_cast<Cell*>(data));
    }
    void write(int64_t begin, int64_t n, const std::byte* data, int64_t n_data) override {
        std::copy_n(reinterpret_cast<const Cell*>(data) + n_data - n, n, cells_.begin() + begin);
    }
    bool can_be_stored(int64_t, const std::byte*) const override { return true; }

    Cell& at(int64_t cell) {
        if (cell >= n_open_ && cell < static_cast<int64_t>(cells_.size()) - n_others) {
            throw std::logic_error("a cell is used that is not open");
        }
        return cells_.at(static_cast<size_t>(cell));
    }

  private:
    int64_t n_open_ = 0;
    std::vector<Cell> cells_;
    Steps& steps_;
};

using Contents = std::map<int32_t, std::vector<int32_t>>;

class Trial {
  public:
    explicit Trial(uint32_t seed)
        : random_(seed),
          scale_(seed % 10 == 9 ? 50 : 1),
          n_ctx_(between(1, 60) * scale_),
          window_(seed % 2 == 0 ? 0 : between(1, 8)),
          n_windowed_(std::min(n_ctx_, between(1, 60) * scale_)),
          blocks_(spaces(), hw::BlockMaps({})) {}

    void run() {
        for (int i = 0; i < 60; i++) {
            const int64_t before = steps_.n;
            if (between(0, 2) == 0) {
                steps_.fails_at = before + between(0, 3);
                steps_.fails_on = between(0, 1) == 0;
            }
            step();
            // A device that goes on failing does not keep anybody from what needs no cells.
            check_numbers();
            steps_.fails_at = -1;
            check_cells();
        }
    }

    int n_failed = 0;
    int n_by_host = 0;
    int n_dropped = 0;

  private:
    std::vector<hw::CellSpace> spaces() {
        std::vector<hw::CellSpace> spaces;
        for (const bool is_windowed : {false, true}) {
            if (is_windowed && window_ == 0) {
                break;
            }
            const int64_t n_usable = is_windowed ? n_windowed_ : n_ctx_;
            const int64_t n_cells = n_usable + between(1, 12);
            const int64_t n_all = n_cells + n_others;
            const int64_t n_first = is_windowed ? between(1, n_usable) : n_usable;
            cells_.emplace_back(n_all, steps_);
            hw::SpaceSize size = {n_usable, n_cells, {n_cells, between(0, n_others)}, n_all, n_first, n_usable};
            if (is_windowed) {
                size.window = window_;
                size.drops = n_usable < n_ctx_;
                size.n_kept = size.drops ? between(1, n_usable) : n_usable;
            }
            spaces.emplace_back(size, cells_.back());
        }
        return spaces;
    }

    int64_t between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_); }

    int32_t any() {
        auto item = known_.begin();
        std::advance(item, between(0, static_cast<int64_t>(known_.size()) - 1));
        return item->first;
    }

    // One operation on the blocks, and on what is known of them if it does not fail.
    void step() {
        try {
            if (known_.size() < 2) {
                known_[blocks_.add(false)] = {};
                return;
            }
            const int32_t block = any();
            const int32_t other = any();
            const std::vector<int32_t> tokens = known_.at(block);
            const auto n = blocks_.last_cut(block, static_cast<int32_t>(between(0, blocks_.len(block))));
            switch (between(0, 7)) {
                case 0:
                    blocks_.truncate(block, n);
                    known_[block].resize(static_cast<size_t>(n));
                    break;
                case 1: {
                    const int32_t tail = blocks_.split(block, n);
                    known_[tail].assign(tokens.begin() + n, tokens.end());
                    known_[block].resize(static_cast<size_t>(n));
                    break;
                }
                case 2:
                    known_[blocks_.copy(block)] = tokens;
                    break;
                case 3: {
                    std::vector<std::byte> data(blocks_.n_bytes(block));
                    blocks_.read(block, data.data());
                    const int64_t origin = blocks_.table().run(block).origin;
                    known_[blocks_.restore(tokens, origin, data.data(), data.size())] = tokens;
                    break;
                }
                case 4:
                    blocks_.free(block);
                    known_.erase(block);
                    break;
                case 5:
                    if (block != other) {
                        append(block, other);
                    }
                    break;
                default:
                    feed(block, between(1, 12) * between(1, scale_), between(0, 1) == 0 ? other : 0);
            }
        } catch (const hw::Error& error) {
            if (error.status() != HW_ERROR_COMPUTE && error.status() != HW_ERROR_CACHE_FULL) {
                throw;
            }
            n_failed += error.status() == HW_ERROR_COMPUTE;
        }
    }

    void append(int32_t dst, int32_t src) {
        n_by_host += blocks_.len(src) > blocks_.table().n_free() && blocks_.len(dst) > 0;
        blocks_.append(dst, src);
        known_[dst].insert(known_[dst].end(), known_[src].begin(), known_[src].end());
        known_[src].clear();
    }

    // As a pass: room, then cells, then tokens.
    void feed(int32_t block, int64_t n, int32_t near) {
        std::vector<int32_t> tokens;
        for (int64_t i = 0; i < n; i++) {
            tokens.push_back(static_cast<int32_t>(between(0, 1000)));
        }
        std::vector<hw::Growth> growth = {{block, n, near}};
        if (near != 0 && near != block) {
            growth.push_back({near, 0, block});
        }
        blocks_.reserve(growth);
        if (blocks_.len(block) == 0) {
            blocks_.set_origin(block, between(0, 50));
        }
        for (size_t space = 0; space < cells_.size(); space++) {
            const hw::Run& run = blocks_.spaces()[space].table().run(block);
            for (int64_t i = 0; i < n; i++) {
                cells_[space].at(run.end() + i) = {tokens[static_cast<size_t>(i)],
                                                   static_cast<int32_t>(run.origin + run.len + i)};
            }
        }
        blocks_.grow(block, tokens.data(), static_cast<int32_t>(n));
        known_[block].insert(known_[block].end(), tokens.begin(), tokens.end());
    }

    void check_numbers() {
        blocks_.check();
        int64_t used = 0;
        for (const auto& [block, tokens] : known_) {
            if (blocks_.tokens(block) != tokens) {
                throw std::logic_error("a block has other tokens than it was given");
            }
            used += static_cast<int64_t>(tokens.size());
        }
        if (blocks_.n_free() != n_ctx_ - used || blocks_.table().runs().size() != known_.size()) {
            throw std::logic_error("cells were lost, or won");
        }
    }

    void check_cells() {
        for (const auto& [block, tokens] : known_) {
            std::vector<std::byte> data(blocks_.n_bytes(block));
            blocks_.read(block, data.data());
            const size_t n_bytes = tokens.size() * sizeof(Cell);
            check_run(block, tokens, 0, data.data(), n_bytes);
            if (window_ > 0) {
                int64_t first = 0;
                std::memcpy(&first, data.data() + n_bytes, sizeof(first));
                check_run(block, tokens, first, data.data() + n_bytes + sizeof(first),
                          data.size() - n_bytes - sizeof(first));
            }
        }
    }

    // Cells of a block's tokens from the first one on, which the last `window_` are among.
    void check_run(int32_t block, const std::vector<int32_t>& tokens, int64_t first, const std::byte* data,
                   size_t n_bytes) {
        const int64_t n = static_cast<int64_t>(n_bytes / sizeof(Cell));
        const int64_t n_tokens = static_cast<int64_t>(tokens.size());
        if (first + n != n_tokens || (first > 0 && n < window_)) {
            throw std::logic_error("a block has dropped what its windows see");
        }
        n_dropped += first > 0;
        for (int64_t i = 0; i < n; i++) {
            Cell cell;
            std::memcpy(&cell, data + static_cast<size_t>(i) * sizeof(Cell), sizeof(Cell));
            const int64_t position = blocks_.table().run(block).origin + first + i;
            if (cell.token != tokens[static_cast<size_t>(first + i)] || cell.position != position) {
                throw std::logic_error("a cell does not hold what its block's token was made to");
            }
        }
    }

    std::mt19937 random_;
    int64_t scale_;  // of large caches, in which blocks can lie far from each other
    int64_t n_ctx_;
    int64_t window_;  // 0: no layers with one
    int64_t n_windowed_;
    Steps steps_;
    std::deque<FailingCells> cells_;  // of each space
    hw::Blocks blocks_;
    Contents known_;
};

}  // namespace

int main() {
    int n_failed = 0;
    int n_by_host = 0;
    int n_dropped = 0;
    for (uint32_t seed = 0; seed < 5000; seed++) {
        Trial trial(seed);
        try {
            trial.run();
        } catch (const std::exception& error) {
            std::printf("seed %u: %s\n", seed, error.what());
            return 1;
        }
        n_failed += trial.n_failed;
        n_by_host += trial.n_by_host;
        n_dropped += trial.n_dropped;
    }
    std::printf("failed %d, by host %d, dropped %d\n", n_failed, n_by_host, n_dropped);
    return n_failed > 1000 && n_by_host > 500 && n_dropped > 1000 ? 0 : 1;
}
