#include "model/grammar.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <exception>

#include "base/error.h"
#include "base/log.h"

namespace hw {

namespace {

constexpr size_t max_trigger = 256;

// So many are asked about one by one; of more, those whose first byte is refused are left out.
constexpr size_t few = 1024;

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

std::vector<std::string> checked_triggers(const hw_sampler_params& params) {
    if (params.n_triggers > 0 && params.triggers == nullptr) {
        fail(HW_ERROR_ARGUMENT, "the grammar has %d triggers, and they are NULL", params.n_triggers);
    }
    for (int32_t i = 0; i < params.n_triggers; i++) {
        // llama.cpp searches for them by regular expressions, whose length goes to the stack.
        const size_t size = params.triggers[i] != nullptr ? std::strlen(params.triggers[i]) : 0;
        if (size < 1 || size > max_trigger) {
            fail(HW_ERROR_ARGUMENT, "grammar_triggers: one of %zu bytes: it must have 1 to %zu", size, max_trigger);
        }
    }
    return {params.triggers, params.triggers + params.n_triggers};
}

// Whether a grammar that can be parsed has <...> outside of texts, sets of characters, and comments.
bool has_names_of_tokens(const char* grammar) {
    while (*grammar != '\0') {
        const char opened = *grammar++;
        const char closed = opened == '"' ? '"' : opened == '[' ? ']' : opened == '#' ? '\n' : '\0';
        if (opened == '<') {
            return true;
        }
        while (closed != '\0' && *grammar != '\0' && *grammar++ != closed) {
            if (grammar[-1] == '\\' && closed != '\n' && *grammar != '\0') {
                grammar++;
            }
        }
    }
    return false;
}

template <typename Wanted>
void erase(std::vector<llama_token_data>* candidates, const Wanted& is_wrong) {
    candidates->erase(std::remove_if(candidates->begin(), candidates->end(), is_wrong), candidates->end());
}

// A regular expression that finds just this text.
std::string as_pattern(const std::string& text) {
    std::string pattern;
    for (char character : text) {
        if (std::strchr("^$\\.*+?()[]{}|", character) != nullptr) {
            pattern += '\\';
        }
        pattern += character;
    }
    return pattern;
}

llama_sampler_ptr parsed(const llama_vocab* vocab, const char* grammar, const std::vector<std::string>& triggers) {
    if (triggers.empty()) {
        return llama_sampler_ptr(llama_sampler_init_grammar(vocab, grammar, "root"));
    }
    std::vector<std::string> patterns;
    for (const std::string& trigger : triggers) {
        patterns.push_back(as_pattern(trigger));
    }
    std::vector<const char*> texts;
    for (const std::string& pattern : patterns) {
        texts.push_back(pattern.c_str());
    }
    return llama_sampler_ptr(
        llama_sampler_init_grammar_lazy_patterns(vocab, grammar, "root", texts.data(), texts.size(), nullptr, 0));
}

}  // namespace

Grammar::Grammar(ModelPtr model, const hw_sampler_params& params)
    : model_(std::move(model)), triggers_(checked_triggers(params)), waits_(!triggers_.empty()) {
    LogScope log;
    check_nesting(params.grammar);
    grammar_ = parsed(model_->vocab(), params.grammar, triggers_);
    if (grammar_ == nullptr) {
        fail(HW_ERROR_ARGUMENT, "the grammar cannot be parsed: %s", log.errors().c_str());
    }
    names_tokens_ = has_names_of_tokens(params.grammar);
}

void Grammar::reset() {
    llama_sampler_reset(grammar_.get());
    tail_.clear();
    waits_ = !triggers_.empty();
}

bool Grammar::allows(llama_token token) const {
    std::vector<llama_token_data> one = {{token, 1.0f, 0.0f}};
    apply(&one);
    return !one.empty();
}

void Grammar::filter(std::vector<llama_token_data>* candidates) const {
    if (!waits_ && !names_tokens_ && candidates->size() > few) {
        const FirstBytes& first = model_->first_bytes();
        const std::array<bool, FirstBytes::n_kinds> may_begin = allowed_beginnings(first);
        erase(candidates, [&](const llama_token_data& candidate) {
            return !may_begin[first.of[static_cast<size_t>(candidate.id)]];
        });
    }
    apply(candidates);
}

// llama.cpp allows no token without a text, but those that end the generation.
std::array<bool, FirstBytes::n_kinds> Grammar::allowed_beginnings(const FirstBytes& first) const {
    std::array<bool, FirstBytes::n_kinds> may_begin = {};
    may_begin[FirstBytes::unknown] = true;
    std::vector<llama_token_data> bytes;
    for (const llama_token token : first.alone) {
        if (token >= 0) {
            bytes.push_back({token, 1.0f, 0.0f});
        }
    }
    apply(&bytes);
    for (const llama_token_data& allowed : bytes) {
        may_begin[first.of[static_cast<size_t>(allowed.id)]] = true;
    }
    return may_begin;
}

void Grammar::apply(std::vector<llama_token_data>* candidates) const {
    llama_token_data_array array = {candidates->data(), candidates->size(), -1, false};
    llama_sampler_apply(grammar_.get(), &array);
    erase(candidates, [](const llama_token_data& candidate) { return !std::isfinite(candidate.logit); });
}

// Where llama.cpp throws, it would end the process at the next one.
bool Grammar::take(llama_token token) {
    if (!ends_waiting(token)) {
        llama_sampler_accept(grammar_.get(), token);
        return true;
    }
    llama_sampler_ptr trial(llama_sampler_clone(grammar_.get()));
    try {
        llama_sampler_accept(trial.get(), token);
    } catch (const std::exception&) {
        return false;
    }
    grammar_ = std::move(trial);
    waits_ = false;
    return true;
}

// Whether a token completes a trigger; if not, it is written.
bool Grammar::ends_waiting(llama_token token) {
    if (!waits_) {
        return false;
    }
    std::string text = tail_ + grammar_text(model_->vocab(), token);
    for (const std::string& trigger : triggers_) {
        if (text.find(trigger) != std::string::npos) {
            return true;
        }
    }
    tail_ = text.substr(text.size() - std::min(text.size(), max_trigger));
    return false;
}

}  // namespace hw
