#include "graph/query.h"

#include "graph/rope.h"

namespace hw {

ggml_tensor* Query::raw() {
    return site_.rope != nullptr ? copy_.of(site_.rope->src[0])
                                 : ggml_permute(copy_.ctx(), copy_.of(site_.node->src[0]), 0, 2, 1, 3);
}

ggml_tensor* Query::at(ggml_tensor* positions) {
    if (site_.rope == nullptr) {
        return copy_.of(site_.node->src[0]);
    }
    if (layer_.key_gain == nullptr) {
        return copy_.at(site_.node->src[0], positions);
    }
    ggml_tensor* q = rope_like(copy_.ctx(), *layer_.key_rope, with_gain(), positions);
    return ggml_permute(copy_.ctx(), q, 0, 2, 1, 3);
}

ggml_tensor* Query::in_view() {
    if (site_.rope != nullptr && layer_.key_gain != nullptr) {
        return ggml_permute(copy_.ctx(), with_gain(), 0, 2, 1, 3);
    }
    return at(copy_.inputs().view_positions);
}

ggml_tensor* Query::with_gain() {
    if (with_gain_ == nullptr) {
        ggml_tensor* q = copy_.at(site_.node->src[0], copy_.inputs().view_positions);  // [d_k, T, H]
        q = ggml_cont(copy_.ctx(), ggml_permute(copy_.ctx(), q, 0, 2, 1, 3));
        with_gain_ = ggml_mul(copy_.ctx(), q, layer_.key_gain);
    }
    return with_gain_;
}

}  // namespace hw
