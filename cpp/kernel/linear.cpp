// Linear attention: MiniMax's lightning attention (heads that decay), gated linear attention, RWKV-6.
#include <algorithm>
#include <cmath>

#include "kernel/diagonal-head.h"

namespace hw {

namespace {

// ALiBi's slopes, as MiniMax has them: of n heads, 2^(-8 (h + 1) / n).
float alibi_slope(int64_t head, int64_t n_head) {
    return std::exp2(-8.0f * static_cast<float>(head + 1) / static_cast<float>(n_head));
}

class LinearTokens final : public DiagonalTokens {
  public:
    LinearTokens(const RecurrenceShape& shape, const LinearTensors& tensors, int64_t head)
        : shape_(shape),
          t_(tensors),
          head_(head),
          own_decay_(std::exp(-shape.slope * alibi_slope(head, shape.n_head))) {}

    void put_row(int64_t token, float* row) const override {
        row = std::copy_n(t_.k.at(token, head_), shape_.d_k, row);
        row = std::copy_n(t_.v.at(token, head_), shape_.d_v, row);
        std::copy_n(t_.decays.data != nullptr ? t_.decays.at(token, head_) : &own_decay_, shape_.n_decay, row);
    }

    void put_query(int64_t token, float* query) const override {
        const float* q = t_.q.at(token, head_);
        std::transform(q, q + shape_.d_k, query, [this](float x) { return shape_.scale * x; });
    }

    const float* bonus() const override { return t_.bonus != nullptr ? t_.bonus + head_ * shape_.d_k : nullptr; }

    float* out(int64_t token) const override { return t_.out + (token * shape_.n_head + head_) * shape_.d_v; }

  private:
    const RecurrenceShape& shape_;
    const LinearTensors& t_;
    int64_t head_;
    float own_decay_;
};

}  // namespace

void run_linear(const RecurrentPlan& plan, const Recurrence& recurrence, const LinearTensors& tensors, float* scratch,
                int ith, int nth) {
    run_heads<DiagonalHead, LinearTokens>(plan, recurrence, tensors, scratch, tensors.bonus != nullptr ? 0 : 1, ith,
                                          nth);
}

}  // namespace hw
