// A sampler's grammar: which tokens it allows next, and what it has taken. One with triggers waits for the first of
// them; llama.cpp finds out only when it has taken a token whether what stands in it behind a trigger is allowed, so it
// takes that one on trial.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "hogwild-sampler.h"
#include "model/model.h"

namespace hw {

class Grammar {
  public:
    // params.grammar is not NULL. Throws HW_ERROR_ARGUMENT.
    Grammar(ModelPtr model, const hw_sampler_params& params);
    void reset();
    bool allows(llama_token token) const;
    // Erases what it refuses, and what has no finite logit.
    void filter(std::vector<llama_token_data>* candidates) const;
    // Whether it has taken a token that it allows: with triggers, what stands behind one may be refused.
    bool take(llama_token token);

  private:
    std::array<bool, FirstBytes::n_kinds> allowed_beginnings(const FirstBytes& first) const;
    void apply(std::vector<llama_token_data>* candidates) const;
    bool ends_waiting(llama_token token);

    ModelPtr model_;
    llama_sampler_ptr grammar_;
    bool names_tokens_;  // by number or name, not by their text
    std::vector<std::string> triggers_;
    bool waits_;        // for one of them
    std::string tail_;  // while it waits: the end of what was written
};

}  // namespace hw
