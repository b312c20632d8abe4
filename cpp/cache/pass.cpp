#include "cache/pass.h"

#include <algorithm>
#include <map>

#include "cache/view-groups.h"

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
        return table_.run(block).n_tokens() + (growth != growth_.end() ? growth->second : 0);
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

// What the pass reads of a block: cells up to its end.
struct Part {
    int64_t begin;
    int64_t n;
    int64_t origin;  // of its first key
    int64_t first;   // token of the block
};

// All of each block, or what some window sees.
class Parts {
  public:
    Parts(const BlockTable& table, const Window& window, const Lengths& lengths, const hw_view* views, int32_t n_views)
        : table_(table), lengths_(lengths) {
        for (int32_t v = 0; v < n_views && window.n > 0; v++) {
            const int64_t first_token =
                lengths.begin(views[v], views[v].n_blocks - 1) + table.run(own_block(views[v])).n_tokens();
            for (int32_t i = 0; i < views[v].n_blocks; i++) {
                const int64_t distance = first_token - lengths.begin(views[v], i);
                const int32_t first =
                    window.first_visible(static_cast<int32_t>(first_token), static_cast<int32_t>(distance));
                const auto [place, is_new] = first_seen_.emplace(views[v].blocks[i], first);
                place->second = std::min(place->second, int64_t{first});
            }
        }
    }

    Part of(int32_t block) const {
        const Run& run = table_.run(block);
        const int64_t n = lengths_.of(block);
        int64_t first = run.first;
        if (const auto seen = first_seen_.find(block); seen != first_seen_.end()) {
            const int64_t origin = run.origin - run.first;  // of the whole block
            first = std::clamp((origin + seen->second) / step * step - origin, run.first, n);
        }
        const int64_t n_left_out = first - run.first;
        return {run.begin + n_left_out, n - first, run.origin + n_left_out, first};
    }

  private:
    // The first key of a part stands at a multiple of it, so that graphs and mirrors serve several passes, and blocks
    // that were made of one by splitting are read as that one.
    static constexpr int64_t step = 64;

    const BlockTable& table_;
    const Lengths& lengths_;
    std::map<int32_t, int64_t> first_seen_;
};

// Which blocks are read as one: those of a block that was split lie one behind the other, in cells and in positions.
// Only where all views agree, so that no cell is read twice.
class Joints {
  public:
    Joints(const Parts& parts, const hw_view* views, int32_t n_views) : parts_(parts) {
        for (int32_t i = 0; i < n_views; i++) {
            int32_t before = none;
            for (int32_t k = 0; k < views[i].n_blocks; k++) {
                const int32_t block = views[i].blocks[k];
                if (parts.of(block).n > 0) {
                    note(&before_, block, before);
                    note(&behind_, before, block);
                    before = block;
                }
            }
            note(&behind_, before, none);
        }
    }

    bool joins(int32_t block, int32_t next) const {
        if (block == none || behind_.at(block) != next || before_.at(next) != block) {
            return false;
        }
        const Part own = parts_.of(block);
        const Part other = parts_.of(next);
        return own.begin + own.n == other.begin && own.origin + own.n == other.origin;
    }

    static constexpr int32_t none = 0;  // no block's id

  private:
    using Neighbours = std::map<int32_t, int32_t>;

    static void note(Neighbours* neighbours, int32_t block, int32_t other) {
        constexpr int32_t several = -1;
        const auto [place, is_new] = neighbours->emplace(block, other);
        if (!is_new && place->second != other) {
            place->second = several;
        }
    }

    const Parts& parts_;
    Neighbours before_;
    Neighbours behind_;
};

class PassBuilder {
  public:
    PassBuilder(const BlockTable& table, const Window& window, const hw_view* views, int32_t n_views)
        : table_(table),
          lengths_(table, views, n_views),
          parts_(table, window, lengths_, views, n_views),
          joints_(parts_, views, n_views) {}

    void begin_group() {
        pass.groups.push_back({pass.n_tokens(), 0, static_cast<int32_t>(pass.blocks.size()), 0,
                               static_cast<int32_t>(pass.pairs.size()), 0});
    }

    // Returns the index behind the last token.
    int32_t add_view(const hw_view& view) {
        const Run& own = table_.run(own_block(view));
        const int64_t first = lengths_.begin(view, view.n_blocks - 1) + own.n_tokens();
        const std::vector<Piece> pieces = pieces_of(view);
        for (int32_t i = 0; i < view.n_tokens; i++) {
            add_pairs(pieces, first + i);
            pass.tokens.push_back(view.tokens[i]);
            pass.positions.push_back(static_cast<int32_t>(own.origin + own.len + i));
            pass.view_positions.push_back(static_cast<int32_t>(first + i));
            pass.cells.push_back(own.end() + i);
        }
        pass.max_pairs = std::max(pass.max_pairs, view.n_blocks);
        PassGroup& group = pass.groups.back();
        group.n_tokens = pass.n_tokens() - group.first_token;
        group.n_blocks = static_cast<int32_t>(pass.blocks.size()) - group.first_block;
        group.n_pairs = static_cast<int32_t>(pass.pairs.size()) - group.first_pair;
        return pass.n_tokens();
    }

    bool has_tokens(int32_t block) const { return lengths_.of(block) > 0; }

    Pass pass;

  private:
    // Of a view: blocks that are read as one.
    struct Piece {
        int32_t index;  // in pass.blocks
        int64_t begin;  // in the view
        int64_t n;
    };

    std::vector<Piece> pieces_of(const hw_view& view) {
        std::vector<Piece> pieces;
        int64_t begin = 0;
        int32_t before = Joints::none;
        for (int32_t i = 0; i < view.n_blocks; i++) {
            const int32_t block = view.blocks[i];
            const Part part = parts_.of(block);
            if (part.n > 0 && joints_.joins(before, block)) {
                Piece& piece = pieces.back();
                piece.n += part.n;
                PassBlock& whole = pass.blocks[static_cast<size_t>(piece.index)];
                whole.n_cells = std::max(whole.n_cells, piece.n);
            } else if (part.n > 0) {
                pieces.push_back({index_of(block, part), begin + part.first, part.n});
            }
            begin += lengths_.of(block);
            before = part.n > 0 ? block : before;
        }
        return pieces;
    }

    int32_t index_of(int32_t block, const Part& part) {
        const auto [place, is_new] = index_.emplace(block, static_cast<int32_t>(pass.blocks.size()));
        if (is_new) {
            pass.blocks.push_back({part.begin, part.n, part.origin});
        }
        return place->second;
    }

    // What the next token, at this position of its view, sees of each piece.
    void add_pairs(const std::vector<Piece>& pieces, int64_t position) {
        for (const Piece& piece : pieces) {
            const int64_t distance = position - piece.begin;
            pass.pairs.push_back({pass.n_tokens(), piece.index, static_cast<int32_t>(distance),
                                  static_cast<int32_t>(std::min(piece.n, distance + 1))});
        }
    }

    const BlockTable& table_;
    Lengths lengths_;
    Parts parts_;
    Joints joints_;
    std::map<int32_t, int32_t> index_;  // first block of a piece -> index in pass.blocks
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

Pass make_pass(const BlockTable& table, const Window& window, const hw_view* views, int32_t n_views) {
    PassBuilder builder(table, window, views, n_views);
    std::vector<int32_t> ends(static_cast<size_t>(n_views));  // of each view's tokens
    for (const auto& group : group_views(views, n_views, [&](int32_t block) { return builder.has_tokens(block); })) {
        builder.begin_group();
        for (const int32_t view : group) {
            ends[static_cast<size_t>(view)] = builder.add_view(views[view]);
        }
    }
    for (int32_t i = 0; i < n_views; i++) {
        const int32_t end = ends[static_cast<size_t>(i)];
        builder.pass.views.push_back({end - views[i].n_tokens, views[i].n_tokens});
        for (int32_t n = views[i].n_outputs; n > 0; n--) {
            builder.pass.outputs.push_back(end - n);
        }
    }
    return std::move(builder.pass);
}

}  // namespace hw
