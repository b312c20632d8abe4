// hogwild-trial.h: the trial of a model file, for a process that may end over it. The rules of hogwild.h hold but for
// one: llama.cpp aborts over many a damaged file.
#ifndef HOGWILD_TRIAL_H
#define HOGWILD_TRIAL_H

#include "hogwild.h"

#ifdef __cplusplus
extern "C" {
#endif

// Loads all of a model but its weights, and LoRA adapters for it, and builds the graph of a pass, on the CPU. Nothing
// is freed: the process is to end.
// Errors: HW_ERROR_ARGUMENT (NULL), HW_ERROR_MODEL (llama.cpp refuses the file).
enum hw_status hw_try_model(const char* path, const char* const* loras, int32_t n_loras, char* err, size_t err_size);

#ifdef __cplusplus
}
#endif
#endif
