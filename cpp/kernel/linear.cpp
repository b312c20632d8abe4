// Linear attention: MiniMax's lightning attention (heads that decay), gated linear attention, RWKV-6.
#include <algorithm>
#include <cmath>

#include "kernel/columns.h"
#include "kernel/recurrence-loops.h"
#include "kernel/recurrence.h"

namespace hw {

namespace {

// ALiBi's slopes, as MiniMax has them: of n heads, 2^(-8 (h + 1) / n).
float alibi_slope(int64_t head, int64_t n_head) {
    return std::exp2(-8.0f * static_cast<float>(head + 1) / static_cast<float>(n_head));
}

class LinearHead {
  public:
    LinearHead(const RecurrentPlan& plan, const Recurrence& recurrence, const LinearTensors& tensors, float* scratch,
               int64_t head)
        : plan_(plan),
          shape_(recurrence.shape),
          t_(tensors),
          d_k_(shape_.d_k),
          d_v_(shape_.d_v),
          head_(head),
          offset_(recurrence.offset +
                  static_cast<size_t>(head) * shape_.n_floats() / static_cast<size_t>(shape_.n_head)),
          own_decay_(std::exp(-shape_.slope * alibi_slope(head, shape_.n_head))),
          queries_(scratch),
          state_(queries_ + plan.n_tokens * d_k_),
          reads_(state_ + d_k_ * d_v_) {}

    // The map with the tokens of the pass; what each of them reads of it, and its query for what stands before.
    void update(const RecurrentWork& work) const {
        float* decay = work.after + offset_;
        if (work.before != nullptr) {
            std::copy_n(work.before + offset_, shape_.n_decay + d_v_ * d_k_, decay);
        } else {
            std::fill_n(decay, shape_.n_decay, 1.0f);
            std::fill_n(decay + shape_.n_decay, d_v_ * d_k_, 0.0f);
        }
        for (int64_t token = work.first_token; token < work.first_token + work.n_tokens; token++) {
            step(token, decay, decay + shape_.n_decay);
        }
    }

    // Adds what the tokens read of the runs before their own, and scales the sum.
    void read(const RecurrentView& view) const {
        const bool is_alone = view.n_links == 0 && view.n_works == 1;
        std::fill_n(state_, d_v_ * d_k_, 0.0f);
        for (int32_t i = 0; i < view.n_links; i++) {
            pass_on(plan_.links[static_cast<size_t>(view.first_link + i)].map);
        }
        for (int32_t i = 0; i < view.n_works; i++) {
            const RecurrentWork& work = plan_.works[static_cast<size_t>(view.first_work + i)];
            for (int64_t token = work.first_token; token < work.first_token + work.n_tokens; token++) {
                if (!is_alone) {
                    add_read(token);
                }
                std::transform(out_of(token), out_of(token) + d_v_, out_of(token),
                               [this](float y) { return shape_.scale * y; });
            }
            if (i + 1 < view.n_works) {
                pass_on(work.after);
            }
        }
    }

  private:
    void step(int64_t token, float* decay, float* state) const {
        const float* q = t_.q.at(token, head_);
        const float* k = t_.k.at(token, head_);
        const float* v = t_.v.at(token, head_);
        const float* decays = t_.decays.data != nullptr ? t_.decays.at(token, head_) : &own_decay_;
        if (t_.bonus != nullptr) {
            set_query(token, decay, q);
            loops_.read(state, d_v_, d_k_, q, out_of(token));
            add_bonus(token, q, k, v);
        }
        for (int64_t i = 0; i < shape_.n_decay; i++) {
            decay[i] = flushed(decay[i] * decays[i]);
        }
        loops_.scan(state, d_v_, d_k_, decays, shape_.n_decay, v, k, q, t_.bonus != nullptr ? reads_ : out_of(token));
        if (t_.bonus == nullptr) {
            set_query(token, decay, q);
        }
    }

    void set_query(int64_t token, const float* decay, const float* q) const {
        for (int64_t i = 0; i < d_k_; i++) {
            query_of(token)[i] = decay[shape_.n_decay == 1 ? 0 : i] * q[i];
        }
    }

    // What an RWKV-6 token reads of itself.
    void add_bonus(int64_t token, const float* q, const float* k, const float* v) const {
        const float* bonus = t_.bonus + head_ * d_k_;
        float seen = 0.0f;
        for (int64_t i = 0; i < d_k_; i++) {
            seen += bonus[i] * q[i] * k[i];
        }
        for (int64_t j = 0; j < d_v_; j++) {
            out_of(token)[j] += seen * v[j];
        }
    }

    void add_read(int64_t token) const {
        loops_.read(state_, d_v_, d_k_, query_of(token), reads_);
        for (int64_t j = 0; j < d_v_; j++) {
            out_of(token)[j] += reads_[j];
        }
    }

    // state_: behind one more run.
    void pass_on(const float* map) const {
        const float* decay = map + offset_;
        const float* state = decay + shape_.n_decay;
        for (int64_t j = 0; j < d_v_; j++) {
            for (int64_t i = 0; i < d_k_; i++) {
                float& x = state_[j * d_k_ + i];
                x = x * decay[shape_.n_decay == 1 ? 0 : i] + state[j * d_k_ + i];
            }
        }
    }

    float* query_of(int64_t token) const { return queries_ + token * d_k_; }
    float* out_of(int64_t token) const { return t_.out + (token * shape_.n_head + head_) * d_v_; }

    const RecurrentPlan& plan_;
    const RecurrenceShape& shape_;
    const LinearTensors& t_;
    int64_t d_k_, d_v_, head_;
    size_t offset_;
    float own_decay_;
    float* queries_;  // [tokens, d_k]: for the runs before the token's own
    float* state_;    // [d_v, d_k]: columns
    float* reads_;    // [d_v]
    const ColumnLoops& loops_ = column_loops();
};

}  // namespace

void run_linear(const RecurrentPlan& plan, const Recurrence& recurrence, const LinearTensors& tensors, float* scratch,
                int ith, int nth) {
    const Share heads = share_of(recurrence.shape.n_head, ith, nth);
    for (int64_t head = heads.begin; head < heads.end; head++) {
        const LinearHead one(plan, recurrence, tensors, scratch, head);
        for (const RecurrentWork& work : plan.works) {
            one.update(work);
        }
        for (const RecurrentView& view : plan.views) {
            one.read(view);
        }
    }
}

}  // namespace hw
