#include "model/sampler.h"

#include <cmath>

#include "base/error.h"
#include "base/log.h"

namespace hw {

namespace {

// llama.cpp parses groups by recursion, and does not look at the stack. Brackets inside of texts count too: so be it.
void check_nesting(const char* grammar) {
    constexpr int max_depth = 500;
    int depth = 0;
    for (; *grammar != '\0' && depth <= max_depth; grammar++) {
        depth += *grammar == '(' ? 1 : *grammar == ')' ? -1 : 0;
    }
    if (depth > max_depth) {
        fail(HW_ERROR_ARGUMENT, "the grammar cannot be parsed: more than %d groups inside each other", max_depth);
    }
}

void check(const hw_sampler_params& params, int32_t n_vocab) {
    const float values[] = {
        params.temperature,      params.top_p, params.min_p, params.repeat_penalty, params.presence_penalty,
        params.frequency_penalty};
    for (float value : values) {
        if (!std::isfinite(value)) {
            fail(HW_ERROR_ARGUMENT, "a sampling parameter is not a finite number");
        }
    }
    if (params.repeat_penalty <= 0.0f) {
        fail(HW_ERROR_ARGUMENT, "repeat_penalty is %g: it must be above 0", static_cast<double>(params.repeat_penalty));
    }
    if (params.n_bias > 0 && (params.bias_tokens == nullptr || params.bias_values == nullptr)) {
        fail(HW_ERROR_ARGUMENT, "logit_bias has %d entries, and its tokens or values are NULL", params.n_bias);
    }
    for (int32_t i = 0; i < params.n_bias; i++) {
        if (params.bias_tokens[i] < 0 || params.bias_tokens[i] >= n_vocab) {
            fail(HW_ERROR_ARGUMENT, "logit_bias names token %d: it must be 0 to %d", params.bias_tokens[i],
                 n_vocab - 1);
        }
        if (std::isnan(params.bias_values[i]) || params.bias_values[i] == INFINITY) {
            fail(HW_ERROR_ARGUMENT, "logit_bias of token %d is not a number, or infinite", params.bias_tokens[i]);
        }
    }
}

}  // namespace

Sampler::Sampler(ModelPtr model, const hw_sampler_params& params) : model_(std::move(model)) {
    LogScope log;
    check(params, model_->n_vocab());
    candidates_.resize(static_cast<size_t>(model_->n_vocab()));
    chain_.reset(llama_sampler_chain_init(llama_sampler_chain_default_params()));
    if (params.n_bias > 0) {
        std::vector<llama_logit_bias> bias;
        for (int32_t i = 0; i < params.n_bias; i++) {
            bias.push_back({params.bias_tokens[i], params.bias_values[i]});
        }
        add(llama_sampler_init_logit_bias(model_->n_vocab(), params.n_bias, bias.data()));
    }
    if (params.penalty_last_n != 0 &&
        (params.repeat_penalty != 1.0f || params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f)) {
        add(llama_sampler_init_penalties(model_->n_vocab(), params.penalty_last_n, params.repeat_penalty,
                                         params.frequency_penalty, params.presence_penalty));
    }
    if (params.grammar != nullptr) {
        check_nesting(params.grammar);
        llama_sampler* grammar = llama_sampler_init_grammar(model_->vocab(), params.grammar, "root");
        if (grammar == nullptr) {
            fail(HW_ERROR_ARGUMENT, "the grammar cannot be parsed: %s", log.errors().c_str());
        }
        add(grammar);
    }
    if (params.temperature <= 0.0f) {
        add(llama_sampler_init_greedy());
        return;
    }
    // The order of llama.cpp's own default chain.
    if (params.top_k > 0) {
        add(llama_sampler_init_top_k(params.top_k));
    }
    if (params.top_p < 1.0f) {
        add(llama_sampler_init_top_p(params.top_p, 1));
    }
    if (params.min_p > 0.0f) {
        add(llama_sampler_init_min_p(params.min_p, 1));
    }
    add(llama_sampler_init_temp(params.temperature));
    add(llama_sampler_init_dist(params.seed));
}

void Sampler::add(llama_sampler* sampler) { llama_sampler_chain_add(chain_.get(), sampler); }

void Sampler::reset() {
    std::lock_guard<std::mutex> lock(mutex_);
    llama_sampler_reset(chain_.get());
}

int32_t Sampler::sample(const float* logits) {
    std::lock_guard<std::mutex> lock(mutex_);
    LogScope log;
    bool any = false;
    for (size_t i = 0; i < candidates_.size(); i++) {
        if (std::isnan(logits[i]) || logits[i] == INFINITY) {
            fail(HW_ERROR_ARGUMENT, "the logit of token %d is not a finite number", static_cast<int>(i));
        }
        any = any || std::isfinite(logits[i]);
        candidates_[i] = {static_cast<llama_token>(i), logits[i], 0.0f};
    }
    llama_token_data_array array = {candidates_.data(), candidates_.size(), -1, false};
    if (any) {
        llama_sampler_apply(chain_.get(), &array);
    }
    if (!any || array.selected < 0 || !std::isfinite(array.data[array.selected].logit)) {
        fail(HW_ERROR_ARGUMENT, "no token can be chosen: %s", any ? "none is allowed" : "the logits are not finite");
    }
    const llama_token token = array.data[array.selected].id;
    llama_sampler_accept(chain_.get(), token);
    return token;
}

}  // namespace hw
