// What a cache is asked to be, checked; how many cells that takes, and how many tokens memory has room for.
#pragma once

#include "attention/choose.h"
#include "cache/cell-moves.h"
#include "hogwild.h"
#include "model/model.h"

namespace hw {

struct CacheParams {
    int32_t n_ctx;
    int32_t n_batch;
    ggml_type type_k;
    ggml_type type_v;
    hw_attention attention;
};

// Throws HW_ERROR_ARGUMENT, naming the value; also for a model without weights, whose graph cannot even be built.
CacheParams checked(const hw_cache_params& params, const Model& model);

// The cells of a cache: those of blocks, the spare one, those that moves go by, and what fills up.
struct CellCount {
    int64_t n_cells;  // of blocks; the spare cell is behind them
    ScratchCells scratch;
    int64_t n_all;
};

CellCount count_cells(int32_t n_ctx, const AttentionChoice& choice);

// The most tokens, up to params.n_ctx, of which keys and values take no more than a share of the memory that is free
// now, on each device that has some of them; 0: not even one. Weights that are mapped from files are no free memory,
// though the system calls it so. Throws as the constructor of Cache, but for HW_ERROR_MEMORY.
int32_t room_for(const ModelPtr& model, const CacheParams& params, double share);

}  // namespace hw
