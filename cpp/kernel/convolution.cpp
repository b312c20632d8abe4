// Short convolutions: an output sees its own input and the d_k before it in its view. RWKV's token shift is one that
// is the input before its own.
#include <algorithm>
#include <array>

#include "kernel/recurrence-loops.h"
#include "kernel/recurrence.h"

namespace hw {

namespace {

// An input of a run, 0 is its newest; NULL: it has fewer tokens. data: where the run lies.
template <class Float>
Float* row_of(const Recurrence& recurrence, Float* data, const RecurrentRun& run, int64_t age) {
    const int64_t n_channels = recurrence.shape.n_head;
    return age >= run.n_tokens ? nullptr
           : run.is_rows()     ? data + static_cast<int64_t>(recurrence.rows_offset) * run.n_room +
                                     (run.first_row + run.n_tokens - 1 - age) * n_channels
                               : data + recurrence.offset + age * n_channels;
}

class Convolution {
  public:
    Convolution(const RecurrentPlan& plan, const Recurrence& recurrence, const ConvolutionTensors& tensors,
                Share channels)
        : plan_(plan),
          d_k_(recurrence.shape.d_k),
          n_channels_(recurrence.shape.n_head),
          recurrence_(recurrence),
          t_(tensors),
          channels_(channels) {}

    // The last inputs of a run, 0 where it has fewer; or those of all its tokens.
    void store(const RecurrentWork& work, const RecurrentView& view) const {
        if (work.before.is_rows()) {
            for (int64_t i = 0; i < work.n_tokens; i++) {
                put(input(work.first_token + i), row_of(recurrence_, work.after, work.run(i + 1), 0));
            }
            return;
        }
        const Rows rows = rows_before(work, view, work.before.is_state);
        for (int64_t age = 0; age < d_k_; age++) {
            const int64_t before = age - work.n_tokens;
            const float* from = before < 0 ? input(work.first_token + work.n_tokens - 1 - age) : rows.at(before + 1);
            put(from, work.after + recurrence_.offset + age * n_channels_);
        }
    }

    void read(const RecurrentView& view) const {
        const RecurrentWork* works = plan_.works.data() + view.first_work;
        const int64_t first = works[0].first_token;
        const int64_t last = works[view.n_works - 1].first_token + works[view.n_works - 1].n_tokens;
        const Rows before = rows_before(works[0], view, true);
        Inputs inputs;
        for (int64_t token = first; token < last; token++) {
            for (int64_t i = 0; i <= d_k_; i++) {
                const int64_t seen = token - d_k_ + i;
                inputs[static_cast<size_t>(i)] = seen >= first ? input(seen) : before.at(first - seen);
            }
            sum(inputs, t_.out + token * n_channels_);
        }
    }

  private:
    using Inputs = std::array<const float*, max_convolution + 1>;

    // inputs: those that an output sees, the oldest first; NULL: 0.
    void sum(const Inputs& inputs, float* out) const {
        const auto all = inputs.begin() + d_k_ + 1;
        if (d_k_ == 3 && std::find(inputs.begin(), all, nullptr) == all) {
            return sum_of_four(inputs[0], inputs[1], inputs[2], inputs[3], out);
        }
        if (t_.weights == nullptr) {
            return put(inputs[0], out);
        }
        std::fill(out + channels_.begin, out + channels_.end, 0.0f);
        for (int64_t i = 0; i <= d_k_; i++) {
            const float* row = inputs[static_cast<size_t>(i)];
            for (int64_t channel = channels_.begin; row != nullptr && channel < channels_.end; channel++) {
                out[channel] += t_.weights[channel * (d_k_ + 1) + i] * row[channel];
            }
        }
    }

    // What most models have, as a loop that compilers make vectors of.
    void sum_of_four(const float* a, const float* b, const float* c, const float* d, float* out) const {
        for (int64_t channel = channels_.begin; channel < channels_.end; channel++) {
            const float* weights = t_.weights + channel * 4;
            out[channel] =
                a[channel] * weights[0] + b[channel] * weights[1] + c[channel] * weights[2] + d[channel] * weights[3];
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

    // Those before the tokens of a work: in its run, and in the links of the view.
    Rows rows_before(const RecurrentWork& work, const RecurrentView& view, bool sees_links) const {
        Rows rows;
        const auto add = [&](const RecurrentRun& run) {
            for (int64_t age = 0; age < std::min(run.n_tokens, d_k_) && rows.n < d_k_; age++) {
                rows.data[static_cast<size_t>(rows.n++)] = row_of(recurrence_, run.data, run, age);
            }
        };
        if (work.before.data != nullptr) {
            add(work.before);
        }
        for (int32_t i = sees_links ? view.n_links : 0; i-- > 0;) {
            add(plan_.links[static_cast<size_t>(view.first_link + i)]);
        }
        return rows;
    }

    void put(const float* from, float* to) const {
        if (from != nullptr) {
            std::copy(from + channels_.begin, from + channels_.end, to + channels_.begin);
        } else {
            std::fill(to + channels_.begin, to + channels_.end, 0.0f);
        }
    }

    const float* input(int64_t token) const { return at_bytes(t_.x, static_cast<size_t>(token) * t_.x_nb_token); }

    const RecurrentPlan& plan_;
    int64_t d_k_;
    int64_t n_channels_;
    const Recurrence& recurrence_;
    const ConvolutionTensors& t_;
    Share channels_;
};

}  // namespace

void run_convolution(const RecurrentPlan& plan, const Recurrence& recurrence, const ConvolutionTensors& tensors,
                     int ith, int nth) {
    const Convolution convolution(plan, recurrence, tensors, share_of(recurrence.shape.n_head, ith, nth));
    for (const RecurrentView& view : plan.views) {
        for (int32_t i = 0; i < view.n_works; i++) {
            convolution.store(plan.works[static_cast<size_t>(view.first_work + i)], view);
        }
    }
    for (const RecurrentView& view : plan.views) {
        convolution.read(view);
    }
}

void join_convolutions(const Recurrence& recurrence, const std::vector<RecurrentRun>& runs, float* out) {
    const int64_t n_channels = recurrence.shape.n_head;
    out += recurrence.offset;
    size_t behind = runs.size();  // runs before it have the inputs that follow
    int64_t in_run = 0;
    for (int64_t age = 0; age < recurrence.shape.d_k; age++, out += n_channels) {
        const float* from = nullptr;
        while (from == nullptr && behind > 0) {
            from = row_of(recurrence, runs[behind - 1].data, runs[behind - 1], in_run++);
            if (from == nullptr) {
                behind--;
                in_run = 0;
            }
        }
        if (from != nullptr) {
            std::copy_n(from, n_channels, out);
        } else {
            std::fill_n(out, n_channels, 0.0f);
        }
    }
}

}  // namespace hw
