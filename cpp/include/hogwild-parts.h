// Parts of the library alone, for tests.
#ifndef HOGWILD_PARTS_H
#define HOGWILD_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hogwild.h"

#ifdef __cplusplus
extern "C" {
#endif

// Verifies the conservation law of the cells (no two blocks overlap, used + free == n_ctx, a token a cell).
enum hw_status hw_cache_check(hw_cache* cache, char* err, size_t err_size);

// The rows that a pass of n tokens is given (hw_cache_pass_size) where n_batch is no limit.
int32_t hw_pass_size(int32_t n);

// Names of the kernels for products that this CPU can run, best first, "plain" (kernel/product-plain.cpp) last;
// separated by ','.
const char* hw_product_kernels(void);
// out [n_rows, n_out] = x [n_rows, n_in] times weights, which are rows of n_in numbers of a ggml_type, as in a file.
// by: one of those names; "ggml": its operation MUL_MAT, with weights that it has repacked.
// Errors: HW_ERROR_UNSUPPORTED: another type than q4_0, q4_K and q6_K, a CPU for which ggml repacks nothing of the
// first two, or which has no kernel of that name. HW_ERROR_ARGUMENT: n_in is no multiple of a block, or n_out none of 8
// (q4_0, q4_K). HW_ERROR_MEMORY.
enum hw_status hw_product(int32_t type, int64_t n_in, int64_t n_out, const void* weights, const float* x,
                          int64_t n_rows, const char* by, float* out, char* err, size_t err_size);

// What a pass took: seconds, seconds of CPU of all threads, and how often one was taken off its core.
struct hw_pass_time {
    double wall;
    double cpu;
    int64_t n_taken;
};

// How many threads a cache whose model has n_threads gives to the first of these passes, and to each that follows (see
// engine/thread-count.h). counts: [n + 1]
enum hw_status hw_thread_counts(int32_t n_threads, const struct hw_pass_time* passes, int32_t n, int32_t* counts,
                                char* err, size_t err_size);

// One recurrence, and blocks that have nothing but its states (kernel/recurrence.h, cache/block-maps.h). Unlike a
// cache, it takes what it is given as it is: blocks must exist, and tokens of a pass must be those of its views.
typedef struct hw_recurrence hw_recurrence;

struct hw_recurrence_params {
    int32_t kind;  // RecurrenceKind
    int32_t n_head;
    int32_t d_k;
    int32_t d_v;
    int32_t n_decay;
    int32_t n_rows;  // that few tokens are kept as; -1: as many as in a model of this recurrence alone
    float scale;
    float slope;
};

struct hw_recurrence_pass {
    const int32_t* blocks;    // those of all views, one view behind the other, each with its own block last
    const int32_t* n_blocks;  // [n_views]
    const int32_t* n_tokens;  // [n_views], which feed one behind the other
    int32_t n_views;
    int32_t n_groups;        // diagonal: of b and c; delta: heads of q and k
    const float* inputs[6];  // as RecurrenceSite::sources, each token's numbers side by side (a convolution's too);
                             // NULL: there is none
    float* out;              // [tokens, n_head, d_v]
    int32_t n_threads;
    bool fails;  // computed, and then as if the pass had failed
};

enum hw_recurrence_change {
    HW_RECURRENCE_ADD = 0,       // block a, anchored if b
    HW_RECURRENCE_REMOVE = 1,    // block a
    HW_RECURRENCE_TRUNCATE = 2,  // block a, to b tokens
    HW_RECURRENCE_SPLIT = 3,     // block a at b; the tail is block c
    HW_RECURRENCE_APPEND = 4,    // block b to block a
    HW_RECURRENCE_COPY = 5,      // block a; the copy is block b
    HW_RECURRENCE_MARK = 6,      // block a
    HW_RECURRENCE_REWRITE = 7    // block a, by way of its bytes
};

enum hw_status hw_recurrence_new(const struct hw_recurrence_params* params, hw_recurrence** recurrence, char* err,
                                 size_t err_size);
void hw_recurrence_free(hw_recurrence* recurrence);
enum hw_status hw_recurrence_change(hw_recurrence* recurrence, enum hw_recurrence_change change, int32_t a, int32_t b,
                                    int32_t c, char* err, size_t err_size);
// The last place at or before n where a block can be cut.
int32_t hw_recurrence_last_cut(hw_recurrence* recurrence, int32_t block, int32_t n);
int32_t hw_recurrence_n_segments(hw_recurrence* recurrence, int32_t block);
struct hw_recurrence_counts {
    int64_t n_links;   // what the views of the last pass read of what stands before their tokens
    int64_t n_joined;  // hw_counts
    int64_t n_bytes;   // of all blocks
};
struct hw_recurrence_counts hw_recurrence_count(hw_recurrence* recurrence);
// Errors: HW_ERROR_MEMORY.
enum hw_status hw_recurrence_run(hw_recurrence* recurrence, const struct hw_recurrence_pass* pass, char* err,
                                 size_t err_size);

#ifdef __cplusplus
}
#endif

#endif
