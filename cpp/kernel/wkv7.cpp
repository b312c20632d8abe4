// RWKV-7: a delta net whose tokens say what is taken out of a state (along a), and where to it is put back (along b).
#include <algorithm>

#include "kernel/matrix-head.h"

namespace hw {

namespace {

class Wkv7Tokens final : public MatrixTokens {
  public:
    Wkv7Tokens(const RecurrenceShape& shape, const Wkv7Tensors& tensors, int64_t head)
        : MatrixTokens(tensors.r, tensors.out, 1.0f), shape_(shape), t_(tensors), head_(head) {}

    void put_row(int64_t token, float* row) const override {
        row = std::copy_n(t_.k.at(token, head_), shape_.d_k, row);
        row = std::copy_n(t_.v.at(token, head_), shape_.d_v, row);
        for (const HeadRows* part : {&t_.decays, &t_.a, &t_.b}) {
            row = std::copy_n(part->at(token, head_), shape_.d_k, row);
        }
    }

  private:
    const RecurrenceShape& shape_;
    const Wkv7Tensors& t_;
    int64_t head_;
};

}  // namespace

void run_wkv7(const RecurrentPlan& plan, const Recurrence& recurrence, const Wkv7Tensors& tensors, float* scratch,
              int ith, int nth) {
    run_heads<MatrixHead, Wkv7Tokens>(plan, recurrence, tensors, scratch, 1, ith, nth);
}

}  // namespace hw
