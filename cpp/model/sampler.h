// A worker's own chain of llama.cpp's samplers, run on logits that our graphs made.
//
// A vocabulary has up to some 250,000 tokens, of which a chain with top_k looks at few, unless top_p comes first: those
// are picked from the logits first, and the tokens are the same (what a penalty or a bias may lift or lower is always
// looked at).
// A grammar is tested on the drawn token alone, as llama.cpp does; only where it refuses that one it is asked about
// others, of those that a chain with top_k looks at the best ones first, and the token is drawn again.
#pragma once

#include <deque>
#include <mutex>
#include <optional>
#include <vector>

#include "hogwild-sampler.h"
#include "model/grammar.h"
#include "model/model.h"

namespace hw {

class Sampler {
  public:
    // Throws HW_ERROR_ARGUMENT.
    Sampler(ModelPtr model, const hw_sampler_params& params);
    void reset();
    // Throws HW_ERROR_ARGUMENT if no token can be chosen.
    int32_t sample(const float* logits);
    int32_t n_vocab() const { return n_vocab_; }

  private:
    void add(llama_sampler* sampler);
    void add_bias(const hw_sampler_params& params);
    void add_penalties(const hw_sampler_params& params);
    void add_step(hw_sampler_step step, const hw_sampler_params& params);
    void take_all(const float* logits);
    void take_promising(const float* logits);
    bool take_best(const float* logits, size_t n);
    std::vector<llama_token> changed() const;
    llama_token choose();
    llama_token choose_by_grammar(const float* logits);
    void accept(llama_token token);

    std::mutex mutex_;
    ModelPtr model_;
    int32_t n_vocab_;
    llama_sampler_ptr chain_;  // all but the grammar
    std::optional<Grammar> grammar_;
    size_t n_best_ = 0;                         // the chain chooses among so many; 0: among all
    std::vector<llama_token> biased_;           // tokens that have a bias
    size_t n_penalized_ = 0;                    // so many of the last tokens are penalized
    std::deque<llama_token> recent_;            // [up to n_penalized]
    std::vector<llama_token_data> candidates_;  // [up to n_vocab]
};

}  // namespace hw

// The handle of the C API: views name it.
struct hw_sampler {
    hw::Sampler sampler;
};
