// Gated delta nets, and Kimi's, where each row decays by itself.
#include <algorithm>
#include <cmath>

#include "kernel/matrix-head.h"

namespace hw {

namespace {

class DeltaTokens final : public MatrixTokens {
  public:
    DeltaTokens(const RecurrenceShape& shape, const DeltaTensors& tensors, int64_t head)
        : MatrixTokens(tensors.q, tensors.out, 1.0f / std::sqrt(static_cast<float>(shape.d_v))),
          shape_(shape),
          t_(tensors),
          head_(head) {}

    void put_row(int64_t token, float* row) const override {
        row = std::copy_n(t_.k.at(token, head_), shape_.d_k, row);
        row = std::copy_n(t_.v.at(token, head_), shape_.d_v, row);
        const float* g = t_.g.at(token, head_);
        row = std::transform(g, g + shape_.n_decay, row, [](float x) { return std::exp(x); });
        *row = *t_.beta.at(token, head_);
    }

  private:
    const RecurrenceShape& shape_;
    const DeltaTensors& t_;
    int64_t head_;
};

}  // namespace

void run_delta(const RecurrentPlan& plan, const Recurrence& recurrence, const DeltaTensors& tensors, float* scratch,
               int ith, int nth) {
    run_heads<MatrixHead, DeltaTokens>(plan, recurrence, tensors, scratch, 1, ith, nth);
}

}  // namespace hw
