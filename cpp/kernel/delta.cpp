// Gated delta nets, and Kimi's, where each row decays by itself.
//
// A map is a state of d_v + d_k columns: those of A begin as the unit matrix and are changed as those of S are, with
// values of 0.
#include <algorithm>
#include <cmath>

#include "kernel/columns.h"
#include "kernel/recurrence-loops.h"
#include "kernel/recurrence.h"

namespace hw {

const float* HeadRows::at(int64_t token, int64_t head) const {
    return at_bytes(data, static_cast<size_t>(token) * nb_token + static_cast<size_t>(head % n_head) * nb_head);
}

namespace {

class DeltaHead {
  public:
    DeltaHead(const RecurrentPlan& plan, const Recurrence& recurrence, const DeltaTensors& tensors, float* scratch,
              int64_t head)
        : plan_(plan),
          d_k_(recurrence.shape.d_k),
          d_v_(recurrence.shape.d_v),
          n_head_(recurrence.shape.n_head),
          offset_(recurrence.offset +
                  static_cast<size_t>(head * (recurrence.shape.d_v + recurrence.shape.d_k) * recurrence.shape.d_k)),
          t_(tensors),
          head_(head),
          queries_(scratch),
          state_(queries_ + plan.n_tokens * recurrence.shape.d_k),
          next_(state_ + recurrence.shape.d_k * recurrence.shape.d_v),
          decays_(next_ + recurrence.shape.d_v + recurrence.shape.d_k) {}

    // The map with the tokens of the pass; what each of them reads of it, and its query for what stands before.
    void update(const RecurrentWork& work) const {
        float* map = work.after + offset_;
        if (work.before != nullptr) {
            std::copy_n(work.before + offset_, (d_v_ + d_k_) * d_k_, map);
        } else {
            std::fill_n(map, (d_v_ + d_k_) * d_k_, 0.0f);
            for (int64_t i = 0; i < d_k_; i++) {
                map[(d_v_ + i) * d_k_ + i] = 1.0f;
            }
        }
        for (int64_t token = work.first_token; token < work.first_token + work.n_tokens; token++) {
            step(token, map);
        }
    }

    // Adds what the tokens read of the runs before their own.
    void read(const RecurrentView& view) const {
        int64_t n_tokens = 0;
        for (int32_t i = 0; i < view.n_works; i++) {
            n_tokens += plan_.works[static_cast<size_t>(view.first_work + i)].n_tokens;
        }
        if (view.n_links == 0 && view.n_works == 1) {
            return;
        }
        if (2 * n_tokens > d_k_) {
            read_composed(view);
        } else {
            read_by_vectors(view);
        }
    }

    void scale(int64_t token) const {
        const float factor = 1.0f / std::sqrt(static_cast<float>(d_v_));
        float* y = out_of(token);
        for (int64_t j = 0; j < d_v_; j++) {
            y[j] *= factor;
        }
    }

  private:
    void step(int64_t token, float* map) const {
        const float* q = t_.q.at(token, head_);
        const float* k = t_.k.at(token, head_);
        const float* v = t_.v.at(token, head_);
        const float* g = t_.g.at(token, head_);
        const float beta = *t_.beta.at(token, head_);
        for (int64_t i = 0; i < (t_.d_g == 1 ? 1 : d_k_); i++) {
            decays_[i] = std::exp(g[i]);
        }
        if (t_.d_g == 1) {
            std::fill_n(decays_ + 1, d_k_ - 1, decays_[0]);
        }
        loops_.step(map, d_v_ + d_k_, d_k_, decays_, k, q, v, d_v_, beta, next_);
        std::copy_n(next_, d_v_, out_of(token));
        std::copy_n(next_ + d_v_, d_k_, query_of(token));
    }

    // Runs from the last to the first; the queries go through their matrices.
    void read_by_vectors(const RecurrentView& view) const {
        for (int32_t i = 0; i < view.n_works; i++) {
            const RecurrentWork& work = plan_.works[static_cast<size_t>(view.first_work + i)];
            for (int64_t token = work.first_token; token < work.first_token + work.n_tokens; token++) {
                for (int32_t before = i; before-- > 0;) {
                    read_run(token, plan_.works[static_cast<size_t>(view.first_work + before)].after,
                             before == 0 && view.n_links == 0);
                }
            }
        }
        const RecurrentWork& first = plan_.works[static_cast<size_t>(view.first_work)];
        const RecurrentWork& last = plan_.works[static_cast<size_t>(view.first_work + view.n_works - 1)];
        for (int32_t i = view.n_links; i-- > 0;) {
            for (int64_t token = first.first_token; token < last.first_token + last.n_tokens; token++) {
                read_run(token, plan_.links[static_cast<size_t>(view.first_link + i)].map, i == 0);
            }
        }
    }

    // Behind the first run of a view nothing is left to read: its matrix is of no use.
    void read_run(int64_t token, const float* run, bool is_first) const {
        const float* map = run + offset_;
        float* query = query_of(token);
        float* y = out_of(token);
        loops_.read(map, is_first ? d_v_ : d_v_ + d_k_, d_k_, query, next_);
        for (int64_t j = 0; j < d_v_; j++) {
            y[j] += next_[j];
        }
        if (!is_first) {
            std::copy_n(next_ + d_v_, d_k_, query);
        }
    }

    // Runs from the first to the last; their states are composed.
    void read_composed(const RecurrentView& view) const {
        bool is_first = true;
        const auto pass_on = [&](const float* run) {
            is_first ? begin(run) : go_on(run);
            is_first = false;
        };
        for (int32_t i = 0; i < view.n_links; i++) {
            pass_on(plan_.links[static_cast<size_t>(view.first_link + i)].map);
        }
        for (int32_t i = 0; i < view.n_works; i++) {
            const RecurrentWork& work = plan_.works[static_cast<size_t>(view.first_work + i)];
            for (int64_t token = work.first_token; !is_first && token < work.first_token + work.n_tokens; token++) {
                loops_.read(state_, d_v_, d_k_, query_of(token), next_);
                for (int64_t j = 0; j < d_v_; j++) {
                    out_of(token)[j] += next_[j];
                }
            }
            pass_on(work.after);
        }
    }

    // state_: behind the first run.
    void begin(const float* run) const { std::copy_n(run + offset_, d_v_ * d_k_, state_); }

    // state_: behind one more.
    void go_on(const float* run) const {
        const float* map = run + offset_;
        const float* matrix = map + d_v_ * d_k_;
        for (int64_t j = 0; j < d_v_; j++) {
            float* column = state_ + j * d_k_;
            std::copy_n(map + j * d_k_, d_k_, next_);
            loops_.add(matrix, d_k_, d_k_, column, next_);
            std::copy_n(next_, d_k_, column);
        }
    }

    float* query_of(int64_t token) const { return queries_ + token * d_k_; }
    float* out_of(int64_t token) const { return t_.out + (token * n_head_ + head_) * d_v_; }

    const RecurrentPlan& plan_;
    int64_t d_k_, d_v_, n_head_;
    size_t offset_;
    const DeltaTensors& t_;
    int64_t head_;
    float* queries_;  // [tokens, d_k]: for the runs before those that were read
    float* state_;    // [d_v, d_k]: columns
    float* next_;     // [d_v + d_k]
    float* decays_;   // [d_k]
    const ColumnLoops& loops_ = column_loops();
};

}  // namespace

void run_delta(const RecurrentPlan& plan, const Recurrence& recurrence, const DeltaTensors& tensors, float* scratch,
               int ith, int nth) {
    const Share heads = share_of(recurrence.shape.n_head, ith, nth);
    for (int64_t head = heads.begin; head < heads.end; head++) {
        const DeltaHead one(plan, recurrence, tensors, scratch, head);
        for (const RecurrentWork& work : plan.works) {
            one.update(work);
        }
        for (const RecurrentView& view : plan.views) {
            one.read(view);
        }
        for (int64_t token = 0; token < plan.n_tokens; token++) {
            one.scale(token);
        }
    }
}

}  // namespace hw
