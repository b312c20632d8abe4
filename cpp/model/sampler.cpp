#include "model/sampler.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "base/c-enum.h"
#include "base/error.h"

namespace hw {

namespace {

void check(const hw_sampler_params& params, int32_t n_vocab) {
    const float values[] = {
        params.temperature,      params.top_p, params.min_p, params.repeat_penalty, params.presence_penalty,
        params.frequency_penalty};
    if (params.seed == LLAMA_DEFAULT_SEED) {
        fail(HW_ERROR_ARGUMENT, "seed is %u, which llama.cpp takes for a random one: it must be 0 to %u", params.seed,
             LLAMA_DEFAULT_SEED - 1);
    }
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

// Throws for a step that there is not, or twice.
std::vector<hw_sampler_step> checked_steps(const hw_sampler_params& params) {
    if (params.steps == nullptr) {
        return {HW_STEP_PENALTIES, HW_STEP_TOP_K, HW_STEP_TOP_P, HW_STEP_MIN_P, HW_STEP_TEMPERATURE};
    }
    std::vector<hw_sampler_step> steps;
    for (int32_t i = 0; i < params.n_steps; i++) {
        const int32_t number = number_of(params.steps[i]);
        if (number < HW_STEP_PENALTIES || number > HW_STEP_TEMPERATURE) {
            fail(HW_ERROR_ARGUMENT, "step %d of the sampler is %d, no value of hw_sampler_step", i, number);
        }
        const hw_sampler_step step = params.steps[i];
        if (std::find(steps.begin(), steps.end(), step) != steps.end()) {
            fail(HW_ERROR_ARGUMENT, "step %d of the sampler, %d, is there twice", i, number);
        }
        steps.push_back(step);
    }
    return steps;
}

// Among so many of the best the chain chooses; 0: among all. Of what may stand before top_k, only top_p asks what
// tokens beyond the k best have: a temperature or min_p leaves the best where they are, and take_promising sees to
// penalties.
size_t n_best(const std::vector<hw_sampler_step>& steps, const hw_sampler_params& params) {
    if (params.temperature <= 0.0f) {
        return 1;
    }
    for (const hw_sampler_step step : steps) {
        if (step == HW_STEP_TOP_P && params.top_p < 1.0f) {
            return 0;
        }
        if (step == HW_STEP_TOP_K && params.top_k > 0) {
            return static_cast<size_t>(params.top_k);
        }
    }
    return 0;
}

// Of two equal ones the first in the vocabulary, as a search of all would find it. A heap has the worst on top.
bool is_better(const llama_token_data& a, const llama_token_data& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

bool is_possible(const llama_token_data& candidate) { return std::isfinite(candidate.logit); }

// Throws where there is no logit to choose by.
void check_finite(const float* logits, int32_t n_vocab) {
    int is_wrong = 0;  // without branches, so that compilers make vectors of it
    int is_any = 0;
    for (int32_t i = 0; i < n_vocab; i++) {
        is_wrong |= static_cast<int>(!(logits[i] < INFINITY));
        is_any |= static_cast<int>(logits[i] > -INFINITY);
    }
    if (is_wrong != 0) {
        const float* wrong = std::find_if(logits, logits + n_vocab, [](float logit) { return !(logit < INFINITY); });
        fail(HW_ERROR_ARGUMENT, "the logit of token %d is not a finite number", static_cast<int>(wrong - logits));
    }
    if (is_any == 0) {
        fail(HW_ERROR_ARGUMENT, "no token can be chosen: the logits are not finite");
    }
}

}  // namespace

Sampler::Sampler(ModelPtr model, const hw_sampler_params& params)
    : model_(std::move(model)), n_vocab_(model_->n_vocab()) {
    check(params, n_vocab_);
    candidates_.reserve(static_cast<size_t>(n_vocab_));
    chain_.reset(llama_sampler_chain_init(llama_sampler_chain_default_params()));
    add_bias(params);
    if (params.grammar != nullptr) {
        grammar_.emplace(model_, params);
    }
    const std::vector<hw_sampler_step> steps = checked_steps(params);
    for (const hw_sampler_step step : steps) {
        add_step(step, params);
    }
    add(params.temperature <= 0.0f ? llama_sampler_init_greedy() : llama_sampler_init_dist(params.seed));
    n_best_ = n_best(steps, params);
}

void Sampler::add(llama_sampler* sampler) { llama_sampler_chain_add(chain_.get(), sampler); }

// Each token once: of a few candidates, llama.cpp would take the first of its values only.
void Sampler::add_bias(const hw_sampler_params& params) {
    std::map<llama_token, float> sums;
    for (int32_t i = 0; i < params.n_bias; i++) {
        sums[params.bias_tokens[i]] += params.bias_values[i];
    }
    std::vector<llama_logit_bias> bias;
    for (const auto& [token, value] : sums) {
        bias.push_back({token, value});
        biased_.push_back(token);
    }
    if (!bias.empty()) {
        add(llama_sampler_init_logit_bias(n_vocab_, static_cast<int32_t>(bias.size()), bias.data()));
    }
}

void Sampler::add_penalties(const hw_sampler_params& params) {
    if (params.penalty_last_n > 0 &&
        (params.repeat_penalty != 1.0f || params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f)) {
        n_penalized_ = static_cast<size_t>(params.penalty_last_n);
        add(llama_sampler_init_penalties(n_vocab_, params.penalty_last_n, params.repeat_penalty,
                                         params.frequency_penalty, params.presence_penalty));
    }
}

// One that does nothing is left out.
void Sampler::add_step(hw_sampler_step step, const hw_sampler_params& params) {
    if (step == HW_STEP_PENALTIES) {
        add_penalties(params);
    } else if (params.temperature <= 0.0f) {
        return;  // the best is what all others would leave
    } else if (step == HW_STEP_TEMPERATURE) {
        add(llama_sampler_init_temp(params.temperature));
    } else if (step == HW_STEP_TOP_K && params.top_k > 0) {
        add(llama_sampler_init_top_k(params.top_k));
    } else if (step == HW_STEP_TOP_P && params.top_p < 1.0f) {
        add(llama_sampler_init_top_p(params.top_p, 1));
    } else if (step == HW_STEP_MIN_P && params.min_p > 0.0f) {
        add(llama_sampler_init_min_p(params.min_p, 1));
    }
}

void Sampler::reset() {
    std::lock_guard<std::mutex> lock(mutex_);
    llama_sampler_reset(chain_.get());
    if (grammar_) {
        grammar_->reset();
    }
    recent_.clear();
}

int32_t Sampler::sample(const float* logits) {
    std::lock_guard<std::mutex> lock(mutex_);
    check_finite(logits, n_vocab_);
    take_promising(logits);
    llama_token token = choose();
    if (token >= 0 && grammar_ && !(grammar_->allows(token) && grammar_->take(token))) {
        token = choose_by_grammar(logits);
    }
    if (token < 0) {
        fail(HW_ERROR_ARGUMENT, "no token can be chosen: none is allowed");
    }
    accept(token);
    return token;
}

// Among all tokens that it allows, which it has taken then. It is asked about the best ones first: where it allows as
// many of them as the chain looks at, what it says of the others changes nothing.
llama_token Sampler::choose_by_grammar(const float* logits) {
    const size_t n_needed = n_best_ == 0 ? SIZE_MAX : n_best_ + changed().size();
    size_t n_asked = n_best_ == 0 ? 0 : 4 * n_needed;
    std::vector<llama_token> refused;  // on trial
    while (true) {
        const bool are_all = take_best(logits, n_asked);
        for (llama_token_data& candidate : candidates_) {
            if (std::find(refused.begin(), refused.end(), candidate.id) != refused.end()) {
                candidate.logit = -INFINITY;
            }
        }
        grammar_->filter(&candidates_);
        if (!are_all && candidates_.size() < n_needed) {
            n_asked = 0;
            continue;
        }
        const llama_token token = choose();
        if (token < 0 || grammar_->take(token)) {
            return token;
        }
        refused.push_back(token);
    }
}

void Sampler::take_all(const float* logits) {
    candidates_.clear();
    for (llama_token token = 0; token < n_vocab_; token++) {
        candidates_.push_back({token, logits[token], 0.0f});
    }
}

// Tokens that penalties and biases may lift or lower.
std::vector<llama_token> Sampler::changed() const {
    std::vector<llama_token> tokens(biased_);
    tokens.insert(tokens.end(), recent_.begin(), recent_.end());
    return tokens;
}

// The n_best of what penalties and biases leave are either changed by them, or among the n_best of the others: so the
// best n_best + n_changed of all, and the changed ones, hold them.
void Sampler::take_promising(const float* logits) { take_best(logits, n_best_ == 0 ? 0 : n_best_ + changed().size()); }

// The n best, and those that may be changed; all where n is 0, or that many that a search for them does not pay.
// Whether these are all.
bool Sampler::take_best(const float* logits, size_t n) {
    if (n == 0 || n * (biased_.size() + 8) >= static_cast<size_t>(n_vocab_)) {
        take_all(logits);
        return true;
    }
    candidates_.clear();
    for (llama_token token = 0; token < static_cast<llama_token>(n); token++) {
        candidates_.push_back({token, logits[token], 0.0f});
    }
    std::make_heap(candidates_.begin(), candidates_.end(), is_better);
    for (llama_token token = static_cast<llama_token>(n); token < n_vocab_; token++) {
        if (logits[token] > candidates_.front().logit) {
            std::pop_heap(candidates_.begin(), candidates_.end(), is_better);
            candidates_.back() = {token, logits[token], 0.0f};
            std::push_heap(candidates_.begin(), candidates_.end(), is_better);
        }
    }
    for (const llama_token token : changed()) {
        candidates_.push_back({token, logits[token], 0.0f});
    }
    // In the order of the vocabulary, as all of them would be, and each once.
    const auto is_before = [](const llama_token_data& a, const llama_token_data& b) { return a.id < b.id; };
    const auto is_same = [](const llama_token_data& a, const llama_token_data& b) { return a.id == b.id; };
    std::sort(candidates_.begin(), candidates_.end(), is_before);
    candidates_.erase(std::unique(candidates_.begin(), candidates_.end(), is_same), candidates_.end());
    return false;
}

// -1: none. Every sampler of the chain may reorder the candidates.
llama_token Sampler::choose() {
    if (std::none_of(candidates_.begin(), candidates_.end(), is_possible)) {
        return -1;
    }
    llama_token_data_array array = {candidates_.data(), candidates_.size(), -1, false};
    llama_sampler_apply(chain_.get(), &array);
    const bool is_chosen = array.selected >= 0 && is_possible(array.data[array.selected]);
    return is_chosen ? array.data[array.selected].id : -1;
}

void Sampler::accept(llama_token token) {
    llama_sampler_accept(chain_.get(), token);
    if (n_penalized_ > 0) {
        recent_.push_back(token);
        if (recent_.size() > n_penalized_) {
            recent_.pop_front();
        }
    }
}

}  // namespace hw
