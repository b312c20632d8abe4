#include "engine/outputs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "model/sampler.h"

namespace hw {

namespace {

// Tokens of a vocabulary whose sampling takes longer than waking a thread.
constexpr int64_t worth_a_thread = 1 << 14;

// log(sum(exp(logits))), by the largest logit, so that no exponential overflows.
double log_sum(const float* logits, int64_t n_vocab) {
    const float most = *std::max_element(logits, logits + n_vocab);
    double sum = 0.0;
    for (int64_t i = 0; i < n_vocab; i++) {
        sum += std::exp(logits[i] - most);
    }
    return most + std::log(sum);
}

// log(softmax(logits))[token]
float log_probability(const float* logits, double log_of_sum, int32_t token) {
    return static_cast<float>(static_cast<double>(logits[token]) - log_of_sum);
}

// A heap that has the worst of the best on top, where they are to stand.
void write_top(const hw_view& view, const float* logits, int32_t n_vocab, double log_of_sum) {
    if (view.n_top == 0) {
        return;  // there is no heap then, nor room for one
    }
    const auto is_better = [logits](int32_t a, int32_t b) {
        return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
    };
    int32_t* end = view.top_tokens + view.n_top;
    std::iota(view.top_tokens, end, 0);
    std::make_heap(view.top_tokens, end, is_better);
    for (int32_t token = view.n_top; token < n_vocab; token++) {
        if (is_better(token, view.top_tokens[0])) {
            std::pop_heap(view.top_tokens, end, is_better);
            end[-1] = token;
            std::push_heap(view.top_tokens, end, is_better);
        }
    }
    std::sort_heap(view.top_tokens, end, is_better);
    for (int32_t i = 0; i < view.n_top; i++) {
        view.top_logprobs[i] = log_probability(logits, log_of_sum, view.top_tokens[i]);
    }
}

}  // namespace

void check_outputs(const hw_view& view, int32_t index, int32_t n_vocab) {
    if (view.n_outputs < 0 || view.n_outputs > view.n_tokens) {
        fail(HW_ERROR_ARGUMENT, "view %d wants outputs of %d tokens and feeds %d", index, view.n_outputs,
             view.n_tokens);
    }
    if ((view.targets == nullptr) != (view.logprobs == nullptr)) {
        fail(HW_ERROR_ARGUMENT, "view %d has targets without logprobs, or logprobs without targets", index);
    }
    if ((view.sampler == nullptr) != (view.sampled == nullptr)) {
        fail(HW_ERROR_ARGUMENT, "view %d has a sampler and nowhere to put its token, or the reverse", index);
    }
    if (view.sampled_logprob != nullptr && view.sampler == nullptr) {
        fail(HW_ERROR_ARGUMENT, "view %d wants the log-probability of its token and has no sampler", index);
    }
    if (view.n_top < 0 || view.n_top > n_vocab) {
        fail(HW_ERROR_ARGUMENT, "view %d wants the %d likeliest tokens: it must be 0 to %d", index, view.n_top,
             n_vocab);
    }
    if (view.n_top > 0 &&
        (view.sampled_logprob == nullptr || view.top_tokens == nullptr || view.top_logprobs == nullptr)) {
        fail(HW_ERROR_ARGUMENT, "view %d wants the likeliest tokens, and has no place for all that is told of them",
             index);
    }
    if (view.sampler != nullptr && view.n_outputs < 1) {
        fail(HW_ERROR_ARGUMENT, "view %d has a sampler, and n_outputs is 0: it needs the last token's logits", index);
    }
    if (view.sampler != nullptr && view.sampler->sampler.n_vocab() != n_vocab) {
        fail(HW_ERROR_ARGUMENT, "the sampler of view %d is of another model: it chooses from %d tokens, not %d", index,
             view.sampler->sampler.n_vocab(), n_vocab);
    }
    for (int32_t i = 0; view.targets != nullptr && i < view.n_outputs; i++) {
        if (view.targets[i] < 0 || view.targets[i] >= n_vocab) {
            fail(HW_ERROR_ARGUMENT, "target %d of view %d is %d: it must be 0 to %d", i, index, view.targets[i],
                 n_vocab - 1);
        }
    }
}

Outputs::Outputs(const hw_view* views, int32_t n_views, const ggml_tensor& logits)
    : n_vocab_(logits.ne[0]), rows_(static_cast<const float*>(logits.data)) {
    int64_t n_rows = 0;
    for (int32_t i = 0; i < n_views; i++) {
        if (views[i].sampler != nullptr) {
            sampled_.push_back(views_.size());
        }
        if (views[i].n_outputs > 0) {
            views_.push_back(&views[i]);
            first_.push_back(n_rows);
            n_rows += views[i].n_outputs;
        }
    }
    if (n_rows > 0 && !ggml_backend_buffer_is_host(logits.buffer)) {
        copy_.resize(static_cast<size_t>(n_rows * n_vocab_));
        ggml_backend_tensor_get(&logits, copy_.data(), 0, copy_.size() * sizeof(float));
        rows_ = copy_.data();
    }
}

void Outputs::write() const {
    for (size_t i = 0; i < views_.size(); i++) {
        const hw_view& view = *views_[i];
        if (view.logits != nullptr) {
            std::copy_n(row(first_[i]), view.n_outputs * n_vocab_, view.logits);
        }
        for (int32_t n = 0; view.targets != nullptr && n < view.n_outputs; n++) {
            const float* logits = row(first_[i] + n);
            view.logprobs[n] = log_probability(logits, log_sum(logits, n_vocab_), view.targets[n]);
        }
    }
}

void Outputs::sample(ThreadPool* pool) const {
    const int n = static_cast<int>(sampled_.size());
    if (n_vocab_ >= worth_a_thread) {
        pool->run(n, [this](int i) { sample(i); });
        return;
    }
    for (int i = 0; i < n; i++) {
        sample(i);
    }
}

void Outputs::sample(int i) const {
    const size_t index = sampled_[static_cast<size_t>(i)];
    const hw_view& view = *views_[index];
    const float* logits = row(first_[index] + view.n_outputs - 1);
    try {
        *view.sampled = view.sampler->sampler.sample(logits);
    } catch (const std::exception&) {
        *view.sampled = -1;
    }
    if (view.sampled_logprob != nullptr && *view.sampled >= 0) {
        const double log_of_sum = log_sum(logits, n_vocab_);
        *view.sampled_logprob = log_probability(logits, log_of_sum, *view.sampled);
        write_top(view, logits, static_cast<int32_t>(n_vocab_), log_of_sum);
    }
}

}  // namespace hw
