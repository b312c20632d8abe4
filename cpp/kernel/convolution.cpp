// Short convolutions: an output sees its own input and the d_k before it in its view. RWKV's token shift is one that
// is the input before its own.
#include <algorithm>
#include <array>

#include "kernel/recurrence-loops.h"
#include "kernel/recurrence.h"

namespace hw {

namespace {

class Convolution {
  public:
    Convolution(const RecurrentPlan& plan, const Recurrence& recurrence, const ConvolutionTensors& tensors,
                Share channels)
        : plan_(plan),
          d_k_(recurrence.shape.d_k),
          n_channels_(recurrence.shape.n_head),
          offset_(recurrence.offset),
          t_(tensors),
          channels_(channels) {}

    // The last inputs of a run; 0 where it has fewer.
    void store(const RecurrentWork& work) const {
        for (int64_t age = 0; age < d_k_; age++) {
            float* to = work.after + offset_ + age * n_channels_;
            const int64_t before = age - work.n_tokens;
            const float* from = before < 0               ? input(work.first_token + work.n_tokens - 1 - age)
                                : before < work.n_before ? row(work.before, before)
                                                         : nullptr;
            for (int64_t channel = channels_.begin; channel < channels_.end; channel++) {
                to[channel] = from != nullptr ? from[channel] : 0.0f;
            }
        }
    }

    void read(const RecurrentView& view) const {
        const RecurrentWork* works = plan_.works.data() + view.first_work;
        const int64_t first = works[0].first_token;
        const int64_t last = works[view.n_works - 1].first_token + works[view.n_works - 1].n_tokens;
        const Rows before = rows_before(view);
        for (int64_t token = first; token < last; token++) {
            float* out = t_.out + token * n_channels_;
            std::fill(out + channels_.begin, out + channels_.end, 0.0f);
            for (int64_t i = 0; i <= d_k_; i++) {
                const int64_t seen = token - d_k_ + i;
                const float* row = seen >= first ? input(seen) : before.at(first - seen);
                if (row != nullptr) {
                    add_seen(row, i, out);
                }
            }
        }
    }

  private:
    // What an output has of the i-th input that it sees, the oldest first.
    void add_seen(const float* row, int64_t i, float* out) const {
        if (t_.weights == nullptr) {
            if (i == 0) {
                std::copy(row + channels_.begin, row + channels_.end, out + channels_.begin);
            }
            return;
        }
        for (int64_t channel = channels_.begin; channel < channels_.end; channel++) {
            out[channel] += t_.weights[channel * (d_k_ + 1) + i] * row[channel];
        }
    }

    // Inputs, the newest first; before the last of them stands nothing.
    struct Rows {
        std::array<const float*, max_convolution> data;
        int64_t n = 0;

        const float* at(int64_t distance) const {
            return distance <= n ? data[static_cast<size_t>(distance - 1)] : nullptr;
        }
    };

    // Those that the view has before its own tokens of this pass.
    Rows rows_before(const RecurrentView& view) const {
        Rows rows;
        const auto add = [&](const float* map, int64_t n_tokens) {
            for (int64_t age = 0; age < std::min(n_tokens, d_k_) && rows.n < d_k_; age++) {
                rows.data[static_cast<size_t>(rows.n++)] = row(map, age);
            }
        };
        const RecurrentWork& own = plan_.works[static_cast<size_t>(view.first_work)];
        add(own.before, own.n_before);
        for (int32_t i = view.n_links; i-- > 0;) {
            const RecurrentLink& link = plan_.links[static_cast<size_t>(view.first_link + i)];
            add(link.map, link.n_tokens);
        }
        return rows;
    }

    const float* input(int64_t token) const { return at_bytes(t_.x, static_cast<size_t>(token) * t_.x_nb_token); }
    const float* row(const float* map, int64_t age) const { return map + offset_ + age * n_channels_; }

    const RecurrentPlan& plan_;
    int64_t d_k_;
    int64_t n_channels_;
    size_t offset_;
    const ConvolutionTensors& t_;
    Share channels_;
};

}  // namespace

void run_convolution(const RecurrentPlan& plan, const Recurrence& recurrence, const ConvolutionTensors& tensors,
                     int ith, int nth) {
    const Convolution convolution(plan, recurrence, tensors, share_of(recurrence.shape.n_head, ith, nth));
    for (const RecurrentWork& work : plan.works) {
        convolution.store(work);
    }
    for (const RecurrentView& view : plan.views) {
        convolution.read(view);
    }
}

}  // namespace hw
