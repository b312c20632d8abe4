// States whose rows decay each by itself: Mamba-2 (one decay a head) and Mamba-1 (one a row).
#include <algorithm>
#include <cmath>

#include "kernel/columns.h"
#include "kernel/recurrence-loops.h"
#include "kernel/recurrence.h"

namespace hw {

namespace {

float softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }

class DiagonalHead {
  public:
    DiagonalHead(const RecurrentPlan& plan, const Recurrence& recurrence, const DiagonalTensors& tensors,
                 float* scratch, int64_t head)
        : plan_(plan),
          d_k_(recurrence.shape.d_k),
          d_v_(recurrence.shape.d_v),
          n_decay_(recurrence.shape.n_decay),
          n_head_(recurrence.shape.n_head),
          offset_(recurrence.offset +
                  static_cast<size_t>(head * (recurrence.shape.n_decay + recurrence.shape.d_v * recurrence.shape.d_k))),
          t_(tensors),
          head_(head),
          group_(head / (recurrence.shape.n_head / tensors.n_group)),
          decays_(scratch),
          state_(scratch + plan.n_tokens * recurrence.shape.n_decay),
          query_(state_ + recurrence.shape.d_v * recurrence.shape.d_k),
          step_decays_(query_ + recurrence.shape.d_k),
          x_dt_(step_decays_ + recurrence.shape.d_k),
          reads_(x_dt_ + recurrence.shape.d_v) {}

    // The map with the tokens of the pass; what each of them reads of it, and how what stands before it has decayed.
    void update(const RecurrentWork& work) const {
        float* decay = work.after + offset_;
        float* state = decay + n_decay_;
        if (work.before != nullptr) {
            std::copy_n(work.before + offset_, n_decay_ + d_v_ * d_k_, decay);
        } else {
            std::fill_n(decay, n_decay_, 1.0f);
            std::fill_n(state, d_v_ * d_k_, 0.0f);
        }
        for (int64_t token = work.first_token; token < work.first_token + work.n_tokens; token++) {
            step(token, decay, state);
            std::copy_n(decay, n_decay_, decays_ + token * n_decay_);
        }
    }

    // Adds what the tokens read of the runs before their own.
    void read(const RecurrentView& view) const {
        if (view.n_links == 0 && view.n_works == 1) {
            return;
        }
        std::fill_n(state_, d_v_ * d_k_, 0.0f);
        for (int32_t i = 0; i < view.n_links; i++) {
            pass_on(plan_.links[static_cast<size_t>(view.first_link + i)].map);
        }
        for (int32_t i = 0; i < view.n_works; i++) {
            const RecurrentWork& work = plan_.works[static_cast<size_t>(view.first_work + i)];
            for (int64_t token = work.first_token; token < work.first_token + work.n_tokens; token++) {
                add_read(token);
            }
            pass_on(work.after);
        }
    }

  private:
    void step(int64_t token, float* decay, float* state) const {
        const size_t row = static_cast<size_t>(token);
        const float dt = softplus(at_bytes(t_.dt, row * t_.dt_nb_token)[head_]);
        const float* a = t_.a + head_ * n_decay_;
        const float* x = at_bytes(t_.x, row * t_.x_nb_token) + head_ * d_v_;
        const float* b = at_bytes(t_.b, row * t_.b_nb_token) + group_ * d_k_;
        for (int64_t i = 0; i < n_decay_; i++) {
            step_decays_[i] = std::exp(dt * a[i]);
            decay[i] = flushed(decay[i] * step_decays_[i]);
        }
        for (int64_t j = 0; j < d_v_; j++) {
            x_dt_[j] = x[j] * dt;
        }
        loops_.scan(state, d_v_, d_k_, step_decays_, n_decay_, x_dt_, b, c_of(token), out_of(token));
    }

    void add_read(int64_t token) const {
        const float* decay = decays_ + token * n_decay_;
        const float* c = c_of(token);
        for (int64_t i = 0; i < d_k_; i++) {
            query_[i] = decay[n_decay_ == 1 ? 0 : i] * c[i];
        }
        loops_.read(state_, d_v_, d_k_, query_, reads_);
        float* y = out_of(token);
        for (int64_t j = 0; j < d_v_; j++) {
            y[j] += reads_[j];
        }
    }

    // state_: behind one more run.
    void pass_on(const float* map) const {
        const float* decay = map + offset_;
        const float* state = decay + n_decay_;
        for (int64_t i = 0; i < d_v_ * d_k_; i++) {
            state_[i] = state_[i] * decay[n_decay_ == 1 ? 0 : i % d_k_] + state[i];
        }
    }

    const float* c_of(int64_t token) const {
        return at_bytes(t_.c, static_cast<size_t>(token) * t_.c_nb_token) + group_ * d_k_;
    }
    float* out_of(int64_t token) const { return t_.out + (token * n_head_ + head_) * d_v_; }

    const RecurrentPlan& plan_;
    int64_t d_k_, d_v_, n_decay_, n_head_;
    size_t offset_;
    const DiagonalTensors& t_;
    int64_t head_;
    int64_t group_;
    float* decays_;  // [tokens, n_decay]: of the token's run, up to it
    float* state_;   // [d_v, d_k]
    float* query_;   // [d_k]
    float* step_decays_;
    float* x_dt_;  // [d_v]
    float* reads_;
    const ColumnLoops& loops_ = column_loops();
};

}  // namespace

void run_diagonal(const RecurrentPlan& plan, const Recurrence& recurrence, const DiagonalTensors& tensors,
                  float* scratch, int ith, int nth) {
    const Share heads = share_of(recurrence.shape.n_head, ith, nth);
    for (int64_t head = heads.begin; head < heads.end; head++) {
        const DiagonalHead one(plan, recurrence, tensors, scratch, head);
        for (const RecurrentWork& work : plan.works) {
            one.update(work);
        }
        for (const RecurrentView& view : plan.views) {
            one.read(view);
        }
    }
}

}  // namespace hw
