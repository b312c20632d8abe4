#include "cache/pass.h"

#include <algorithm>
#include <map>

namespace hw {

namespace {

// Lengths of blocks with the tokens of this pass.
class Lengths {
  public:
    Lengths(const BlockTable& table, const hw_view* views, int32_t n_views) : table_(table) {
        for (int32_t i = 0; i < n_views; i++) {
            growth_[own_block(views[i])] = views[i].n_tokens;
        }
    }

    int64_t of(int32_t block) const {
        const auto growth = growth_.find(block);
        return table_.run(block).len + (growth != growth_.end() ? growth->second : 0);
    }

    // Where the i-th block of a view begins in it.
    int64_t begin(const hw_view& view, int32_t i) const {
        int64_t sum = 0;
        for (int32_t before = 0; before < i; before++) {
            sum += of(view.blocks[before]);
        }
        return sum;
    }

  private:
    const BlockTable& table_;
    std::map<int32_t, int64_t> growth_;
};

class PassBuilder {
  public:
    PassBuilder(const BlockTable& table, const hw_view* views, int32_t n_views)
        : table_(table), lengths_(table, views, n_views) {}

    void add_view(const hw_view& view) {
        const Run& own = table_.run(own_block(view));
        const int64_t own_begin = lengths_.begin(view, view.n_blocks - 1);
        for (int32_t i = 0; i < view.n_tokens; i++) {
            add_pairs(view, own_begin + own.len + i);
            pass.tokens.push_back(view.tokens[i]);
            pass.positions.push_back(static_cast<int32_t>(own.origin + own.len + i));
            pass.view_positions.push_back(static_cast<int32_t>(own_begin + own.len + i));
            pass.cells.push_back(own.begin + own.len + i);
        }
        pass.max_pairs = std::max(pass.max_pairs, view.n_blocks);
        for (int32_t i = view.n_outputs; i > 0; i--) {
            pass.outputs.push_back(pass.n_tokens() - i);
        }
    }

    Pass pass;

  private:
    int32_t index_of(int32_t block) {
        const auto [place, is_new] = index_.emplace(block, static_cast<int32_t>(pass.blocks.size()));
        if (is_new) {
            pass.blocks.push_back({table_.run(block).begin, lengths_.of(block), table_.run(block).origin});
        }
        return place->second;
    }

    // What the next token, at this position of its view, sees of each block.
    void add_pairs(const hw_view& view, int64_t position) {
        int64_t begin = 0;
        for (int32_t i = 0; i < view.n_blocks; i++) {
            const int64_t n = lengths_.of(view.blocks[i]);
            const int64_t distance = position - begin;
            if (n > 0) {
                pass.pairs.push_back({pass.n_tokens(), index_of(view.blocks[i]), static_cast<int32_t>(distance),
                                      static_cast<int32_t>(std::min(n, distance + 1))});
            }
            begin += n;
        }
    }

    const BlockTable& table_;
    Lengths lengths_;
    std::map<int32_t, int32_t> index_;  // block -> index in pass.blocks
};

}  // namespace

int64_t origin_for(const BlockTable& table, const hw_view* views, int32_t n_views, int32_t block) {
    const Lengths lengths(table, views, n_views);
    int64_t origin = INT64_MAX;
    for (int32_t v = 0; v < n_views; v++) {
        for (int32_t i = 0; i < views[v].n_blocks; i++) {
            if (views[v].blocks[i] == block) {
                origin = std::min(origin, lengths.begin(views[v], i));
            }
        }
    }
    return origin;
}

Pass make_pass(const BlockTable& table, const hw_view* views, int32_t n_views) {
    PassBuilder builder(table, views, n_views);
    for (int32_t i = 0; i < n_views; i++) {
        builder.add_view(views[i]);
    }
    return std::move(builder.pass);
}

}  // namespace hw
