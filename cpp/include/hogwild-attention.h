// The attention kernel on plain arrays, for tests and benchmarks: one layer of one pass.
#ifndef HOGWILD_ATTENTION_H
#define HOGWILD_ATTENTION_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Shapes are written fastest axis first. Strides (nb_*) are in bytes and not negative. The queries, the angles and
// F32 caches must be aligned to 4 bytes.
struct hw_attention_args {
    int32_t n_tokens;
    int32_t n_head;
    int32_t n_head_kv;  // divides n_head
    int32_t d_k;        // size of queries and keys
    int32_t d_v;        // size of values and outputs
    int32_t n_cells;    // of the cache
    float scale;
    float softcap;       // 0: none
    float max_bias;      // ALiBi; 0: none
    const float* sinks;  // (n_head) or NULL

    const float* q;  // (d_k, n_head, n_query_rows)
    int64_t q_nb_head;
    int64_t q_nb_row;
    int32_t n_query_rows;
    int32_t rope;   // 0: queries come rotated, 1: pairs of neighbours, 2: pairs half of n_rot apart
    int32_t n_rot;  // even, <= d_k
    int32_t n_angle_rows;
    const float* angles;  // (n_rot, n_angle_rows), cosines and sines; NULL if rope is 0
    int64_t angles_nb_row;
    int32_t hadamard;  // > 0: a power of two that divides d_k; queries are multiplied by that Hadamard matrix as well

    const void* k;  // (d_k, n_cells, n_head_kv)
    int64_t k_nb_cell;
    int64_t k_nb_head;
    int32_t k_type;  // a ggml_type
    int32_t v_type;
    const void* v;  // (d_v, n_cells, n_head_kv)
    int64_t v_nb_cell;
    int64_t v_nb_head;

    const int32_t* blocks;  // (4, n_blocks): cell, n_cells, first_pair, n_pairs
    const int32_t* pairs;   // (6, n_pairs): token, query row, angle row, first key, last key + 1, distance
    int32_t n_blocks;
    int32_t n_pairs;
    float* out;      // (d_v, n_head, n_tokens)
    int32_t n_runs;  // > 1: so often, one after the other with one plan, as the layers of a pass do
};

// Runs the kernel of that name ("auto" or NULL: the best here) on n_threads threads of its own.
// Returns 0; 1: an argument is wrong, 2: no such kernel here, 3: out of memory or threads.
int hw_attention(const struct hw_attention_args* args, const char* isa, int n_threads);

// Names of the kernels that this CPU can run, best first, "plain" (the slow one to compare with) last; separated by
// ','.
const char* hw_attention_isas(void);

#ifdef __cplusplus
}
#endif

#endif
