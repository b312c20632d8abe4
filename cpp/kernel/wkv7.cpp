// RWKV-7: a delta net whose tokens say what is taken out of a state (along a), and where to it is put back (along b).
//
// Maps are those of delta nets: the columns of A begin as the unit matrix, and are changed as those of S are, with
// values of 0.
#include <algorithm>

#include "kernel/columns.h"
#include "kernel/recurrence-loops.h"
#include "kernel/recurrence.h"

namespace hw {

namespace {

class Wkv7Head {
  public:
    Wkv7Head(const RecurrentPlan& plan, const Recurrence& recurrence, const Wkv7Tensors& tensors, float* scratch,
             int64_t head)
        : plan_(plan),
          t_(tensors),
          d_k_(recurrence.shape.d_k),
          d_v_(recurrence.shape.d_v),
          n_columns_(d_v_ + d_k_),
          n_head_(recurrence.shape.n_head),
          head_(head),
          offset_(recurrence.offset + static_cast<size_t>(head * n_columns_ * d_k_)),
          queries_(scratch),
          state_(queries_ + plan.n_tokens * d_k_),
          next_(state_ + d_k_ * d_v_) {}

    // The map with the tokens of the pass; what each of them reads of it, and its query for what stands before.
    void update(const RecurrentWork& work) const {
        float* map = work.after + offset_;
        if (work.before != nullptr) {
            std::copy_n(work.before + offset_, n_columns_ * d_k_, map);
        } else {
            std::fill_n(map, n_columns_ * d_k_, 0.0f);
            for (int64_t i = 0; i < d_k_; i++) {
                map[(d_v_ + i) * d_k_ + i] = 1.0f;
            }
        }
        for (int64_t token = work.first_token; token < end_of(work); token++) {
            loops_.wkv7(map, n_columns_, d_k_, t_.decays.at(token, head_), t_.a.at(token, head_), t_.b.at(token, head_),
                        t_.k.at(token, head_), t_.r.at(token, head_), t_.v.at(token, head_), d_v_, next_);
            std::copy_n(next_, d_v_, out_of(token));
            std::copy_n(next_ + d_v_, d_k_, query_of(token));
        }
    }

    // Adds what the tokens read of the runs before their own: a vector by a matrix for each of them and each run, or,
    // for many tokens, runs composed.
    void read(const RecurrentView& view) const {
        const int64_t first = plan_.works[static_cast<size_t>(view.first_work)].first_token;
        const int64_t n = end_of(plan_.works[static_cast<size_t>(view.first_work + view.n_works - 1)]) - first;
        return 2 * n > d_k_ ? read_composed(view) : read_by_vectors(view);
    }

  private:
    // Runs from the last to the first; the queries go through their matrices.
    void read_by_vectors(const RecurrentView& view) const {
        for (int32_t i = 0; i < view.n_works; i++) {
            const RecurrentWork& work = plan_.works[static_cast<size_t>(view.first_work + i)];
            for (int64_t token = work.first_token; token < end_of(work); token++) {
                for (int32_t run = view.n_links + i; run-- > 0;) {
                    read_run(token, map_of(view, run), run == 0);
                }
            }
        }
    }

    // Behind the first run of a view nothing is left to read: its matrix is of no use.
    void read_run(int64_t token, const float* map, bool is_first) const {
        loops_.read(map, is_first ? d_v_ : n_columns_, d_k_, query_of(token), next_);
        add_read(token);
        if (!is_first) {
            std::copy_n(next_ + d_v_, d_k_, query_of(token));
        }
    }

    // Runs from the first to the last; their states are composed.
    void read_composed(const RecurrentView& view) const {
        for (int32_t run = 0; run < view.n_links + view.n_works; run++) {
            if (run >= view.n_links && run > 0) {
                const RecurrentWork& work = plan_.works[static_cast<size_t>(view.first_work + run - view.n_links)];
                for (int64_t token = work.first_token; token < end_of(work); token++) {
                    loops_.read(state_, d_v_, d_k_, query_of(token), next_);
                    add_read(token);
                }
            }
            pass_on(map_of(view, run), run == 0);
        }
    }

    // state_: behind one more run.
    void pass_on(const float* map, bool is_first) const {
        for (int64_t j = 0; j < d_v_; j++) {
            float* column = state_ + j * d_k_;
            std::copy_n(map + j * d_k_, d_k_, next_);
            if (!is_first) {
                loops_.add(map + d_v_ * d_k_, d_k_, d_k_, column, next_);
            }
            std::copy_n(next_, d_k_, column);
        }
    }

    void add_read(int64_t token) const {
        for (int64_t j = 0; j < d_v_; j++) {
            out_of(token)[j] += next_[j];
        }
    }

    // The runs of a view, those of its own tokens last.
    const float* map_of(const RecurrentView& view, int32_t run) const {
        const float* map = run < view.n_links
                               ? plan_.links[static_cast<size_t>(view.first_link + run)].map
                               : plan_.works[static_cast<size_t>(view.first_work + run - view.n_links)].after;
        return map + offset_;
    }

    static int64_t end_of(const RecurrentWork& work) { return work.first_token + work.n_tokens; }
    float* query_of(int64_t token) const { return queries_ + token * d_k_; }
    float* out_of(int64_t token) const { return t_.out + (token * n_head_ + head_) * d_v_; }

    const RecurrentPlan& plan_;
    const Wkv7Tensors& t_;
    int64_t d_k_, d_v_, n_columns_, n_head_, head_;
    size_t offset_;
    float* queries_;  // [tokens, d_k]: for the runs before those that were read
    float* state_;    // [d_v, d_k]: columns
    float* next_;     // [d_v + d_k]
    const ColumnLoops& loops_ = column_loops();
};

}  // namespace

void run_wkv7(const RecurrentPlan& plan, const Recurrence& recurrence, const Wkv7Tensors& tensors, float* scratch,
              int ith, int nth) {
    const Share heads = share_of(recurrence.shape.n_head, ith, nth);
    for (int64_t head = heads.begin; head < heads.end; head++) {
        const Wkv7Head one(plan, recurrence, tensors, scratch, head);
        for (const RecurrentWork& work : plan.works) {
            one.update(work);
        }
        for (const RecurrentView& view : plan.views) {
            one.read(view);
        }
    }
}

}  // namespace hw
