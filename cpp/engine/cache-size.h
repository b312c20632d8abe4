// What a cache is asked to be, checked; how many cells that takes, and how many tokens memory has room for.
#pragma once

#include "attention/choose.h"
#include "engine/cell-space.h"
#include "hogwild.h"
#include "model/model.h"

namespace hw {

struct CacheParams {
    int32_t n_ctx;
    int32_t n_batch;
    ggml_type type_k;
    ggml_type type_v;
    hw_attention attention;
    int32_t n_windows;
};

// Throws HW_ERROR_ARGUMENT, naming the value; also for a model without weights, whose graph cannot even be built.
CacheParams checked(const hw_cache_params& params, const Model& model);

// The cells of a cache in each space: those of blocks, the scratch cells, and what fills up. Layers with a window have
// n_windows windows and the tokens of a pass, n_ctx at most.
std::vector<SpaceSize> sizes_of_spaces(const ModelSpec& spec, const CacheParams& params, const AttentionChoice& choice);
std::vector<int64_t> n_all_of(const std::vector<SpaceSize>& sizes);

// The most tokens, up to params.n_ctx, of which keys and values take no more than a share of the memory that is free
// now, on each device that has some of them, and on the host the recurrent states of a run too; 0: not even one.
// Weights that are mapped from files are no free memory, though the system calls it so. Throws as the constructor of
// Cache, but for HW_ERROR_MEMORY.
int32_t room_for(const ModelPtr& model, const CacheParams& params, double share);

}  // namespace hw
