#include "pass.h"

#include <algorithm>
#include <map>

namespace hw {

namespace {

int32_t own_block(const hw_view& view) { return view.blocks[view.n_blocks - 1]; }

class PassBuilder {
  public:
    PassBuilder(const BlockTable& table, const hw_view* views, int32_t n_views) : table_(table) {
        for (int32_t i = 0; i < n_views; i++) {
            growth_[own_block(views[i])] = views[i].n_tokens;
        }
    }

    void add_view(const hw_view& view) {
        const Run& own = table_.run(own_block(view));
        int64_t own_begin = 0;  // where the own block begins in the view
        for (int32_t i = 0; i < view.n_blocks - 1; i++) {
            own_begin += len(view.blocks[i]);
        }
        for (int32_t i = 0; i < view.n_tokens; i++) {
            add_pairs(view, own_begin + own.len + i);
            pass.tokens.push_back(view.tokens[i]);
            pass.positions.push_back(static_cast<int32_t>(own.len + i));
            pass.view_positions.push_back(static_cast<int32_t>(own_begin + own.len + i));
            pass.cells.push_back(own.begin + own.len + i);
        }
        pass.max_pairs = std::max(pass.max_pairs, view.n_blocks);
        pass.outputs.push_back(pass.n_tokens() - 1);
    }

    Pass pass;

  private:
    // Tokens of a block, those of this pass included.
    int64_t len(int32_t block) const {
        const auto growth = growth_.find(block);
        return table_.run(block).len + (growth != growth_.end() ? growth->second : 0);
    }

    int32_t index_of(int32_t block) {
        const auto [place, is_new] = index_.emplace(block, static_cast<int32_t>(pass.blocks.size()));
        if (is_new) {
            pass.blocks.push_back({table_.run(block).begin, len(block)});
        }
        return place->second;
    }

    // What the next token, at this position of its view, sees of each block.
    void add_pairs(const hw_view& view, int64_t position) {
        int64_t begin = 0;
        for (int32_t i = 0; i < view.n_blocks; i++) {
            const int64_t n = len(view.blocks[i]);
            const int64_t distance = position - begin;
            if (n > 0) {
                pass.pairs.push_back({pass.n_tokens(), index_of(view.blocks[i]), static_cast<int32_t>(distance),
                                      static_cast<int32_t>(std::min(n, distance + 1))});
            }
            begin += n;
        }
    }

    const BlockTable& table_;
    std::map<int32_t, int64_t> growth_;
    std::map<int32_t, int32_t> index_;  // block -> index in pass.blocks
};

}  // namespace

Pass make_pass(const BlockTable& table, const hw_view* views, int32_t n_views) {
    PassBuilder builder(table, views, n_views);
    for (int32_t i = 0; i < n_views; i++) {
        builder.add_view(views[i]);
    }
    return std::move(builder.pass);
}

}  // namespace hw
