// A chunk of a prompt whose other chunks are computed elsewhere: hw_decode_chunk.
#pragma once

#include "cache/kv-store.h"
#include "engine/blocks.h"
#include "engine/layer-cuts.h"
#include "hogwild.h"

namespace hw {

// Throws HW_ERROR_ARGUMENT where the chunk and its view do not fit together. Returns the tokens computed elsewhere.
int32_t check_chunk(const hw_chunk& chunk, const hw_view& view, size_t n_layers);

// Tokens that a block has although their cells hold nothing yet: forgotten again unless they are kept.
class PromisedTokens {
  public:
    // There is room for them (Blocks::reserve).
    PromisedTokens(Blocks& blocks, int32_t block, const int32_t* tokens, int32_t n);
    PromisedTokens(const PromisedTokens&) = delete;
    PromisedTokens& operator=(const PromisedTokens&) = delete;
    ~PromisedTokens();
    void keep() { is_kept_ = true; }

  private:
    Blocks& blocks_;
    int32_t block_;
    int32_t n_before_;
    bool is_kept_ = false;
};

// Hands out the chunk's cells of each layer, and fills the promised ones.
class ChunkExchange : public LayerHook {
  public:
    // begin: the cell of the first promised token, in each space; n_own: tokens of the chunk, whose cells are behind
    // those.
    ChunkExchange(const KvStore& store, const hw_chunk& chunk, std::vector<int64_t> begin, int32_t n_own)
        : store_(store), chunk_(chunk), begin_(std::move(begin)), n_own_(n_own) {}
    // Throws HW_ERROR_COMPUTE where the callback stops.
    void stored(int layer) override;

  private:
    const KvStore& store_;
    const hw_chunk& chunk_;
    std::vector<int64_t> begin_;
    int32_t n_own_;
};

}  // namespace hw
