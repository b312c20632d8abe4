// hogwild-sampler.h: the samplers of hogwild.h, whose rules hold here too.
#ifndef HOGWILD_SAMPLER_H
#define HOGWILD_SAMPLER_H

#include "hogwild.h"

#ifdef __cplusplus
extern "C" {
#endif

// A sampler: logit bias, the steps in their order, and the draw. Top-p before the temperature, as in llama.cpp's own
// order, keeps other tokens than top-p after it, as cards of models mostly mean it.
enum hw_sampler_step {
    HW_STEP_PENALTIES = 0,
    HW_STEP_TOP_K = 1,
    HW_STEP_TOP_P = 2,
    HW_STEP_MIN_P = 3,
    HW_STEP_TEMPERATURE = 4
};

struct hw_sampler_params {
    float temperature;  // <= 0: greedy, after the penalties, whatever the order of the others
    int32_t top_k;      // <= 0: off
    float top_p;        // >= 1: off
    float min_p;        // <= 0: off
    float repeat_penalty;
    float presence_penalty;
    float frequency_penalty;
    int32_t penalty_last_n;
    uint32_t seed;  // not 2^32 - 1, which is "random" to llama.cpp
    int32_t n_bias;
    const int32_t* bias_tokens;  // [n_bias]
    const float* bias_values;    // [n_bias], added to the logits
    const char* grammar;         // GBNF with the root "root", or NULL
    int32_t n_triggers;
    const char* const* triggers;  // [n_triggers] of 1 to 256 bytes: the grammar waits for one of these, which it holds
    const enum hw_sampler_step* steps;  // [n_steps], each once; one that is not there is left out. NULL: as numbered
    int32_t n_steps;
};

enum hw_status hw_sampler_new(hw_model* model, const struct hw_sampler_params* params, hw_sampler** sampler, char* err,
                              size_t err_size);
void hw_sampler_free(hw_sampler* sampler);
// Back to the state after hw_sampler_new: penalties forgotten, grammar at its root, the seed as given.
void hw_sampler_reset(hw_sampler* sampler);
// Chooses a token from logits [n_vocab] and counts it as written (penalties, grammar). A grammar is tested on the drawn
// token; where it refuses that one, all tokens that it allows are drawn from.
// Errors: HW_ERROR_ARGUMENT (no finite logit, or no token is allowed).
enum hw_status hw_sampler_sample(hw_sampler* sampler, const float* logits, int32_t* token, char* err, size_t err_size);

#ifdef __cplusplus
}
#endif
#endif
