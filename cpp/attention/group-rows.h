// Queries and results of one group of views among those of a pass: see PassGroup.
#pragma once

#include "ggml.h"

namespace hw {

// n rows of queries F32 [d_k, T, H], from the first on.
inline ggml_tensor* rows_of_queries(ggml_context* ctx, ggml_tensor* q, int64_t first, int64_t n) {
    if (n == q->ne[1]) {
        return q;
    }
    return ggml_view_3d(ctx, q, q->ne[0], n, q->ne[2], q->nb[1], q->nb[2], static_cast<size_t>(first) * q->nb[1]);
}

// Results [d_v, H, T] of groups, one behind the other; before: nullptr for the first. The largest group is the last, so
// that its rows are copied once.
inline ggml_tensor* joined(ggml_context* ctx, ggml_tensor* before, ggml_tensor* result) {
    return before == nullptr ? result : ggml_concat(ctx, before, result, 2);
}

}  // namespace hw
