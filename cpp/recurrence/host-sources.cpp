#include "recurrence/host-sources.h"

#include <algorithm>

#include "base/error.h"
#include "graph/nodes.h"
#include "model/ggml-context.h"

namespace hw {

namespace {

// [d, H, T] or [H, T] -> [numbers, T]
ggml_tensor* as_rows(ggml_context* ctx, ggml_tensor* source, int dim) {
    const bool lies_apart = dim == 2 && source->ne[1] > 1 && source->nb[1] != source->nb[0] * source->ne[0];
    ggml_tensor* whole = lies_apart ? ggml_cont(ctx, source) : source;
    const int64_t n_numbers = dim == 2 ? whole->ne[0] * whole->ne[1] : whole->ne[0];
    return ggml_view_2d(ctx, whole, n_numbers, whole->ne[dim], whole->nb[dim], 0);
}

}  // namespace

int token_dim(const RecurrenceShape& shape, const std::vector<ggml_tensor*>& sources, size_t i) {
    switch (shape.kind) {
        case RecurrenceKind::convolution:  // inputs, [T, channels] where there are weights
            return i > 0 ? -1 : sources.size() > 1 ? 0 : 1;
        case RecurrenceKind::diagonal:  // x, dt, a, b, c
            return i == 1 ? 1 : i == 2 ? -1 : 2;
        case RecurrenceKind::linear:  // q, k, v, w, bonus
            return i == 4 ? -1 : 2;
        case RecurrenceKind::delta:
        case RecurrenceKind::wkv7:
            break;
    }
    return 2;
}

std::vector<ggml_tensor*> HostSources::of(ggml_context* ctx, const RecurrenceShape& shape,
                                          std::vector<ggml_tensor*> sources) {
    std::vector<size_t> of_tokens;
    ggml_tensor* rows = nullptr;
    for (size_t i = 0; i < sources.size(); i++) {
        const int dim = token_dim(shape, sources, i);
        if (dim < 0) {
            sources[i] = weight_here(sources[i]);
        } else if (dim > 0 && sources.size() > 1) {
            ggml_tensor* of_source = as_rows(ctx, sources[i], dim);
            rows = rows == nullptr ? of_source : ggml_concat(ctx, rows, of_source, 0);
            of_tokens.push_back(i);
        }
    }
    if (rows == nullptr) {
        return sources;
    }
    ggml_tensor* here = ggml_cont(ctx, rows);
    nodes_.push_back(here);
    size_t offset = 0;
    for (const size_t i : of_tokens) {
        const ggml_tensor* source = sources[i];
        const size_t n_row = static_cast<size_t>(source->ne[0]) * sizeof(float);
        if (token_dim(shape, sources, i) == 1) {
            sources[i] = ggml_view_2d(ctx, here, source->ne[0], source->ne[1], here->nb[1], offset);
            offset += n_row;
        } else {
            sources[i] =
                ggml_view_3d(ctx, here, source->ne[0], source->ne[1], source->ne[2], n_row, here->nb[1], offset);
            offset += n_row * static_cast<size_t>(source->ne[1]);
        }
    }
    return sources;
}

// A copy of it; itself if it is none.
ggml_tensor* HostSources::weight_here(const ggml_tensor* weight) {
    const ggml_tensor* root = root_of(weight);
    if (!is_weight(root) || !ggml_is_contiguous(weight)) {
        return const_cast<ggml_tensor*>(weight);
    }
    Weight copy = {new_context(1), nullptr};
    ggml_tensor* here = ggml_dup_tensor(copy.ctx.get(), weight);
    copy.buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(copy.ctx.get(), ggml_backend_cpu_buffer_type()));
    if (copy.buffer == nullptr) {
        fail(HW_ERROR_MEMORY, "no memory for weights of a recurrent layer");
    }
    ggml_backend_buffer_set_usage(copy.buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    ggml_backend_tensor_get(root, here->data, weight == root ? 0 : weight->view_offs, ggml_nbytes(here));
    weights_.push_back(std::move(copy));
    return here;
}

}  // namespace hw
