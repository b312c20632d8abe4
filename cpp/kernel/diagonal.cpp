// Mamba-2 (one decay a head) and Mamba-1 (one a row).
#include <algorithm>
#include <cmath>

#include "kernel/diagonal-head.h"

namespace hw {

namespace {

float softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }

class MambaTokens final : public DiagonalTokens {
  public:
    MambaTokens(const RecurrenceShape& shape, const DiagonalTensors& tensors, int64_t head)
        : shape_(shape), t_(tensors), head_(head), group_(head / (shape.n_head / tensors.n_group)) {}

    void put_row(int64_t token, float* row) const override {
        const size_t at = static_cast<size_t>(token);
        const float dt = softplus(at_bytes(t_.dt, at * t_.dt_nb_token)[head_]);
        const float* x = at_bytes(t_.x, at * t_.x_nb_token) + head_ * shape_.d_v;
        const float* a = t_.a + head_ * shape_.n_decay;
        row = std::copy_n(at_bytes(t_.b, at * t_.b_nb_token) + group_ * shape_.d_k, shape_.d_k, row);
        row = std::transform(x, x + shape_.d_v, row, [=](float value) { return value * dt; });
        std::transform(a, a + shape_.n_decay, row, [=](float rate) { return std::exp(dt * rate); });
    }

    void put_query(int64_t token, float* query) const override {
        std::copy_n(at_bytes(t_.c, static_cast<size_t>(token) * t_.c_nb_token) + group_ * shape_.d_k, shape_.d_k,
                    query);
    }

    float* out(int64_t token) const override { return t_.out + (token * shape_.n_head + head_) * shape_.d_v; }

  private:
    const RecurrenceShape& shape_;
    const DiagonalTensors& t_;
    int64_t head_;
    int64_t group_;
};

}  // namespace

void run_diagonal(const RecurrentPlan& plan, const Recurrence& recurrence, const DiagonalTensors& tensors,
                  float* scratch, int ith, int nth) {
    run_heads<DiagonalHead, MambaTokens>(plan, recurrence, tensors, scratch, 1, ith, nth);
}

}  // namespace hw
