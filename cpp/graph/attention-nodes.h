// Where llama.cpp's graph attends: in one FLASH_ATTN_EXT node, or, where llama.cpp turns flash attention off, in
// several nodes: a product of keys and queries, a SOFT_MAX, a product with the values. Those are read as the one node
// that would compute the same, so that nothing else needs to know.
#pragma once

#include <map>

#include "ggml-cpp.h"

namespace hw {

struct AttentionNodes {
    ggml_context_ptr ctx;  // of the nodes that stand for several
    // By the node whose place our result takes: itself, or, for a MUL_MAT of values [n, d_v, Hkv] and weights
    // [n, T, H], one that stands for it.
    std::map<const ggml_tensor*, const ggml_tensor*> flash;
};

// Throws HW_ERROR_UNSUPPORTED where it is not known what is done to the scores.
AttentionNodes find_attention(ggml_cgraph* graph);

}  // namespace hw
