// hogwild.h: concurrent attention over one shared KV cache, on top of llama.cpp's own graphs.
//
// Objects
//   hw_model    a loaded GGUF model: weights, tokenizer, metadata. Immutable after loading.
//   hw_cache    one KV cache of n_ctx cells and the compute graphs that read and write it. It keeps its model alive.
//   block       a run of tokens inside a cache, named by an int32 id that the cache hands out. Owned by its cache.
//   view        an ordered list of blocks, the last one its own; not an object, only an argument of hw_decode.
//   hw_sampler  a chain of llama.cpp's samplers with its own random state. It keeps its model alive.
// hogwild-sampler.h has what is done with a sampler. Each *_free takes NULL. Objects may be freed in any order.
//
// Calls return a status. On anything but HW_OK the text of the error is in err (cut to err_size, always terminated),
// every output argument is untouched, and the objects are as they were before the call. No call throws or aborts.
// A call without a status, where it cannot answer (NULL for an object or for a buffer with a size, a log hook that
// calls), returns -1, or what its type has in place of that: 0 bytes, false, NULL.
// Calls on one object from several threads wait for each other; freeing an object that another thread is using is the
// only thing a caller must not do.
//
// Example: two workers over one prompt, each seeing the other's tokens
//   hw_model * model;  hw_model_load(&params, &model, err, sizeof err);
//   hw_cache * cache;  hw_cache_new(model, &cache_params, &cache, err, sizeof err);
//   int32_t prompt, a, b;   hw_block_new(cache, true, &prompt, err, sizeof err); ... a, b alike
//   hw_decode(cache, {blocks: {prompt}, ...}, 1, ...);                              // prefill: n_outputs 0
//   hw_decode(cache, {{prompt, b, a}, ...}, {{prompt, a, b}, ...}, 2, ...);         // one pass of both workers, each
//                                                                                   // with n_outputs 1 and a sampler
#ifndef HOGWILD_H
#define HOGWILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum hw_status {
    HW_OK = 0,
    HW_ERROR_ARGUMENT = 1,     // a value is out of range; nothing was changed: correct the call
    HW_ERROR_MODEL = 2,        // the file is missing, truncated or no GGUF model: use another file
    HW_ERROR_UNSUPPORTED = 3,  // the model holds something that cannot be re-wired (named): use another model
    HW_ERROR_CACHE_FULL = 4,   // not enough free cells: free, clear or truncate a block, or leave a view out
    HW_ERROR_BATCH = 5,        // the tokens of the call do not fit n_batch: feed them in several calls
    HW_ERROR_MEMORY = 6,       // memory for weights, cache or compute buffers could not be had: ask for less
    HW_ERROR_CANCELLED = 7,    // the progress callback said stop
    HW_ERROR_COMPUTE = 8,      // a backend failed: all blocks hold what they held, the call can be repeated
    HW_ERROR_DEVICE = 9,       // a device, or the backend of one, cannot be had (named)
    HW_ERROR_BUSY = 10         // called from inside a log hook, see hw_log_set: nothing was done
};

typedef struct hw_model hw_model;
typedef struct hw_cache hw_cache;
typedef struct hw_sampler hw_sampler;

// -- the library ------------------------------------------------------------------------------------------------

// Sizes of the llama.cpp structs this library was compiled against: what the caller compares with the llama.cpp it has
// loaded, because the sonames of llama.cpp guard nothing.
size_t hw_sizeof_model_params(void);
size_t hw_sizeof_context_params(void);
size_t hw_sizeof_tensor(void);  // ggml_tensor

// Bytes of host memory that this process can still have: what /proc/meminfo calls available, and what the control
// groups that it is in leave it (containers), of which the smallest counts. What is asked before keys, values and
// buffers of a pass are allocated. SIZE_MAX: the system does not tell. root: where /proc and /sys are looked for; NULL:
// where they are.
size_t hw_free_host_memory(const char* root);

// Receives llama.cpp's and ggml's log lines while a call of this library runs on the same thread.
// level: 1 debug, 2 info, 3 warn, 4 error, 5 continuation of the line before. NULL: quiet (the default).
// A hook runs in the middle of a call. From inside it only hw_log_set and hw_sizeof_* answer: any other call is refused
// (HW_ERROR_BUSY), and what a *_free names is freed at the end of the outermost call on that thread.
typedef void (*hw_log_callback)(int32_t level, const char* text, void* user_data);
void hw_log_set(hw_log_callback callback, void* user_data);

// -- devices ----------------------------------------------------------------------------------------------------

// Devices of other machines are those of ggml's RPC servers. ggml ends the process where such a server cannot be
// reached, dies, or answers nonsense, at any call on a model that uses it: no call of this library can prevent that.
// Look first whether the server is there, and keep such a model in a process of its own (as the Python side does).

// Sees to it that ggml has its RPC backend: it is compiled in, or the shared library at path has it (NULL: there is
// none). Nothing happens if ggml has it already. Errors: HW_ERROR_DEVICE.
enum hw_status hw_rpc_load(const char* path, char* err, size_t err_size);

struct hw_rpc_server_params {
    const char* endpoint;        // "host:port", an IPv4 address
    const char* const* devices;  // [n_devices], names as in hw_devices; none: all GPUs, or the CPU
    int32_t n_devices;
    int32_t n_threads;  // >= 1: of the CPU device
};

// Runs ggml's RPC server. Serves one client after the other, prints on stdout, and returns only with an error:
// HW_ERROR_ARGUMENT (unknown device), HW_ERROR_DEVICE (no RPC backend, or the address cannot be bound).
// The protocol has no authentication: whoever reaches the port may use, or crash, this process.
enum hw_status hw_rpc_server(const struct hw_rpc_server_params* params, char* err, size_t err_size);

// All that this process can compute on, a line each: name, tab, description. Fills buf (terminated, cut to size) and
// returns the full length in bytes.
int32_t hw_devices(char* buf, size_t size);
// The GPUs that a model uses unless told otherwise, a name a line, likewise.
int32_t hw_gpus(char* buf, size_t size);

// -- model ------------------------------------------------------------------------------------------------------

// progress in 0..1; return false to stop.
typedef bool (*hw_progress_callback)(float progress, void* user_data);

// A LoRA adapter: a GGUF file as llama.cpp's convert_lora_to_gguf.py writes it. Several are added up.
struct hw_lora {
    const char* path;
    float scale;  // 0: as if it were not given
};

// A control vector: a GGUF file with tensors "direction.N", each added to what leaves layer N. Several are added up.
struct hw_control_vector {
    const char* path;
    float scale;
    int32_t first_layer;  // the layers it is added in, 1 to layers - 1; 0 and 0: all
    int32_t last_layer;
};

enum hw_split {
    HW_SPLIT_LAYER = 0,  // layers over all devices
    HW_SPLIT_NONE = 1    // all on the device main_gpu
};

struct hw_model_params {
    const char* path;      // UTF-8; the first file of a split model, named NAME-00001-of-0000N.gguf beside the others
    int32_t n_gpu_layers;  // 0: CPU only; -1: all
    int32_t n_threads;     // >= 1: threads of every cache of this model, one fewer at times (thread-count.h)
    int32_t n_threads_chunk;  // those of them that hw_decode_chunk uses; 0: all
    bool use_mmap;
    bool vocab_only;  // tokenizer, metadata and chat template, no weights: of any GGUF file that has a vocabulary
    hw_progress_callback progress;  // may be NULL
    void* user_data;
    const struct hw_lora* loras;  // [n_loras], not read after the call
    int32_t n_loras;
    int32_t n_control_vectors;
    const struct hw_control_vector* control_vectors;  // [n_control_vectors], likewise
    const char* const* rpc_servers;                   // [n_rpc_servers] "host:port": their devices come first
    int32_t n_rpc_servers;
    const char* const* devices;  // [n_devices], names of GPUs as in hw_devices: those that are used; NULL: as hw_gpus
    int32_t n_devices;
    int32_t n_tensor_split;
    const float* tensor_split;  // [n_tensor_split]: how much of the offloaded part each device takes; none: by memory
    enum hw_split split_mode;
    int32_t main_gpu;  // with HW_SPLIT_NONE: a device by its number, servers first
};

// A model of vocab_only takes no adapters, samples, and has no caches: hw_cache_new is HW_ERROR_ARGUMENT.
// HW_ERROR_MODEL is also for an adapter that is missing, damaged, or made for another model (named).
// Errors: HW_ERROR_ARGUMENT, HW_ERROR_MODEL, HW_ERROR_UNSUPPORTED (no decoder, diffusion, ...), HW_ERROR_MEMORY,
// HW_ERROR_CANCELLED, HW_ERROR_DEVICE (too many; no RPC backend: call hw_rpc_load first).
enum hw_status hw_model_load(const struct hw_model_params* params, hw_model** model, char* err, size_t err_size);
void hw_model_free(hw_model* model);

int32_t hw_model_n_vocab(const hw_model* model);
int32_t hw_model_n_ctx_train(const hw_model* model);  // 0 where vocab_only
int32_t hw_model_n_threads(const hw_model* model);
// Bytes of weights in pages of the model's files: a pass needs them, though the system calls such memory available.
size_t hw_model_n_mapped_bytes(const hw_model* model);
// The llama_model pointer, for callers that also use llama.cpp's API; owned by the model.
void* hw_model_llama(const hw_model* model);

// These fill buf (terminated, cut to size) and return the full length in bytes, or -1 where there is no such thing.
int32_t hw_model_description(const hw_model* model, char* buf, size_t size);
int32_t hw_model_chat_template(const hw_model* model, char* buf, size_t size);
int32_t hw_model_n_metadata(const hw_model* model);
int32_t hw_model_metadata_key(const hw_model* model, int32_t index, char* buf, size_t size);
int32_t hw_model_metadata_value(const hw_model* model, int32_t index, char* buf, size_t size);

// What of a model, or of a cache, lies on which device.
struct hw_placement {
    const char* device;       // ggml's name: "CPU", "CUDA0", "RPC0"; lives as long as the library
    const char* description;  // of the device; the address of a server
    int32_t layer;            // -1: of no layer (embeddings, output)
    uint64_t n_bytes;         // weights of the model; keys and values of the cache
    bool is_fused;            // cache: whether our CPU kernel attends to this layer
};

// Writes at most max rows, ordered by device and layer, and returns how many there are.
int32_t hw_model_placement(const hw_model* model, struct hw_placement* rows, int32_t max);

// -- tokenizer --------------------------------------------------------------------------------------------------

enum hw_token_kind { HW_TOKEN_BOS = 0, HW_TOKEN_EOS = 1, HW_TOKEN_EOT = 2, HW_TOKEN_NEWLINE = 3 };
int32_t hw_token_special(const hw_model* model, enum hw_token_kind kind);  // -1: the model has none
bool hw_token_is_end(const hw_model* model, int32_t token);                // end of generation; false out of range
bool hw_token_is_control(const hw_model* model, int32_t token);

// Writes at most max tokens and returns how many there are (call again with room if it is more than max), or -1 if the
// text is longer than 2^30 bytes, or the model has no vocabulary. text need not be terminated.
int32_t hw_tokenize(const hw_model* model, const char* text, size_t n_bytes, bool add_special, bool parse_special,
                    int32_t* tokens, int32_t max);
// The bytes of one token (control tokens too if special), not terminated. Returns how many there are, -1 out of range;
// without a vocabulary tokens have none.
int32_t hw_token_bytes(const hw_model* model, int32_t token, bool special, char* buf, int32_t size);
// The bytes of many tokens, as hw_token_bytes, with llama.cpp's handling of leading spaces. -1: a token out of range.
int32_t hw_detokenize(const hw_model* model, const int32_t* tokens, int32_t n_tokens, bool special, char* buf,
                      int32_t size);

// -- cache ------------------------------------------------------------------------------------------------------

enum hw_attention {
    HW_ATTENTION_AUTO = 0,     // fused where a layer's cache lies in CPU memory, ggml elsewhere
    HW_ATTENTION_FUSED = 1,    // our CPU kernel; HW_ERROR_ARGUMENT if a layer's cache lies on another device
    HW_ATTENTION_GGML = 2,     // ggml's flash attention where the devices have it and it is faster, else composed
    HW_ATTENTION_COMPOSED = 3  // ggml's plain operations, block by block: any backend, and the oracle of the others
};

struct hw_cache_params {
    int32_t n_ctx;       // cells: tokens of all blocks together
    int32_t n_batch;     // most tokens of one hw_decode
    const char* type_k;  // of stored keys: "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0" or "iq4_nl"
    const char* type_v;
    enum hw_attention attention;
    // Layers with a sliding window hold the tokens of so many windows and of a pass, n_ctx at most. Each block needs a
    // window of its own there, or as many tokens as it has. In the CPU's memory those that nobody uses are not touched;
    // what there is no memory for when it is needed is HW_ERROR_CACHE_FULL.
    int32_t n_windows;
};

// Errors: HW_ERROR_ARGUMENT, HW_ERROR_UNSUPPORTED (the model's graph, or a type, named), HW_ERROR_MEMORY.
enum hw_status hw_cache_new(hw_model* model, const struct hw_cache_params* params, hw_cache** cache, char* err,
                            size_t err_size);
void hw_cache_free(hw_cache* cache);
// The most tokens, up to params->n_ctx, of which a cache with these params takes no more than a share (above 0, 1 at
// most) of the memory that is free now, on each device that has some of its layers; 0: not even one. Of host memory
// that is hw_free_host_memory, without the weights that are mapped from files, which the system calls available. What a
// device does not tell limits nothing. Errors: HW_ERROR_ARGUMENT, HW_ERROR_UNSUPPORTED.
enum hw_status hw_cache_room(hw_model* model, const struct hw_cache_params* params, double share, int32_t* n_ctx,
                             char* err, size_t err_size);

int32_t hw_cache_n_free(hw_cache* cache);  // cells not used by any block
// Cells of layers with a sliding window; n_ctx where no layer has one, or those are as many.
int32_t hw_cache_n_windowed(hw_cache* cache);
size_t hw_cache_n_bytes(hw_cache* cache);  // bytes of stored keys and values, all layers, and of recurrent states
int32_t hw_cache_n_recurrences(hw_cache* cache);  // of the model, whose states each block keeps; mostly 0
// Counted since the cache was made.
struct hw_counts {
    int64_t n_moved;  // cells moved to make room for growing blocks, or to bring blocks near those they are read with
    // Cells whose keys were copied and turned for flash attention, because a view has their block elsewhere than where
    // it was written.
    int64_t n_mirrored;
    int64_t n_mirrored_values;  // and those whose values were, which keep from pass to pass
    // Scores of attention in a layer, one for each query and cell, masked ones too; where some have a sliding window,
    // in one of each kind.
    int64_t n_scores;
    // States of recurrent layers that were joined, one for each block and recurrence: a few in a pass, of what was fed
    // in earlier ones.
    int64_t n_joined;
    int64_t n_composed;       // and that ggml's own operations made of prompts, as on devices; else our CPU kernel does
    int64_t n_graphs;         // graphs built, each for passes of one size
    int64_t n_source_graphs;  // graphs that llama.cpp was asked for to build those of, which takes longer
};
struct hw_counts hw_cache_counts(hw_cache* cache);
// What nodes of ggml's graphs took, those of one operation on matrices of one size together.
struct hw_node_time {
    char kind[96];  // "MUL_MAT q4_0 [1024, 3072]": the type and the rows of what it reads
    int64_t count;
    int64_t us;
};
// Times each node of later passes, or no longer (not of hw_decode_chunk), and forgets what was timed. Returns whether.
bool hw_cache_time_nodes(hw_cache* cache, bool on);
int32_t hw_cache_node_times(hw_cache* cache, struct hw_node_time* rows, int32_t max);  // as hw_cache_weights
// A matrix of weights that each token is multiplied with.
struct hw_weight_share {
    int32_t type;      // a ggml_type
    bool is_repacked;  // by ggml's CPU backend
    bool is_routed;    // experts, of which a token reads some
    double n_bytes;    // that one token reads
    double n_values;   // that one token is multiplied with
};
// Those in this machine's memory; returns how many there are, fills in at most max.
int32_t hw_cache_weights(hw_cache* cache, struct hw_weight_share* rows, int32_t max);
// Keys and values of one token, all layers.
struct hw_cell_size {
    double n_bytes;
    double n_values;
};
struct hw_cell_size hw_cache_cell_size(hw_cache* cache);
// Rows that a pass of n tokens is computed with: more may be cheaper. n: 1 to n_batch.
enum hw_status hw_cache_pass_size(hw_cache* cache, int32_t n, int32_t* rows, char* err, size_t err_size);
int32_t hw_cache_placement(hw_cache* cache, struct hw_placement* rows, int32_t max);  // as hw_model_placement

// Ids and lengths of all blocks, by id. Writes at most max of each and returns how many blocks there are.
int32_t hw_cache_blocks(hw_cache* cache, int32_t* ids, int32_t* lens, int32_t max);

// Blocks. All of these are HW_ERROR_ARGUMENT for a block that does not exist. A block may stand in any number of views;
// it is freed by hw_block_free alone. Where a call fails, every block holds what it held, token by token and bit by
// bit, also when a device failed in the middle of it (HW_ERROR_COMPUTE): the call can be repeated. Cells may lie
// elsewhere then, moves that were begun are finished by the next call that needs cells, and what no window sees may
// have been dropped.

// A new empty block. Ids are never used again. is_anchored: the same tokens stand before it in every view, as before a
// prompt; then models with recurrent layers keep less of it, and its views elsewhere are HW_ERROR_ARGUMENT there.
enum hw_status hw_block_new(hw_cache* cache, bool is_anchored, int32_t* block, char* err, size_t err_size);
enum hw_status hw_block_len(hw_cache* cache, int32_t block, int32_t* len, char* err, size_t err_size);
// The tokens that the block was made from: writes at most max of them, and how many there are to n.
enum hw_status hw_block_tokens(hw_cache* cache, int32_t block, int32_t* tokens, int32_t max, int32_t* n, char* err,
                               size_t err_size);
enum hw_status hw_block_free(hw_cache* cache, int32_t block, char* err, size_t err_size);
// Where a block can be cut: the last place at or before n, 0 to len. In models with recurrent layers these are few: the
// begin, the end, places in texts that were fed at once, where it ended when it was marked, and in the newest tokens,
// if they were fed a few at a time, anywhere. In models with sliding windows it is 0 where what a window would see
// there has been dropped: layers with a window keep more than a window of a block while there is room, so what was fed
// last can mostly be cut. In others it is n.
enum hw_status hw_block_last_cut(hw_cache* cache, int32_t block, int32_t n, int32_t* at, char* err, size_t err_size);
enum hw_status hw_block_mark(hw_cache* cache, int32_t block, char* err, size_t err_size);
// Keeps the first n tokens; n = 0 clears. HW_ERROR_ARGUMENT if n is not in 0..len, or the block cannot be cut there.
enum hw_status hw_block_truncate(hw_cache* cache, int32_t block, int32_t n, char* err, size_t err_size);
// The tokens from n on become a block of their own, *tail, where they are: no cell moves and no key is rotated. A view
// that has both, one behind the other, sees what it saw. HW_ERROR_ARGUMENT as hw_block_truncate.
enum hw_status hw_block_split(hw_cache* cache, int32_t block, int32_t n, int32_t* tail, char* err, size_t err_size);
// Moves all tokens of src to the end of dst: their keys are rotated once, to where they stand there; src is cleared.
// Needs no free cells (in a full cache a step goes by way of host memory). Errors: HW_ERROR_ARGUMENT (dst is src),
// HW_ERROR_MEMORY, HW_ERROR_COMPUTE.
enum hw_status hw_block_append(hw_cache* cache, int32_t dst, int32_t src, char* err, size_t err_size);
// A new block with the same tokens, its cells copied. Errors: HW_ERROR_CACHE_FULL, HW_ERROR_MEMORY, HW_ERROR_COMPUTE.
enum hw_status hw_block_copy(hw_cache* cache, int32_t block, int32_t* copy, char* err, size_t err_size);

// A block as bytes (docs/block-format.md): its tokens, its cells as they are stored, and a fingerprint of what they are
// good for: weights, adapters, rotation, type_k and type_v. The fingerprint of the weights reads some of the model's
// files at the first of these calls on a cache: HW_ERROR_MODEL if they were removed or changed since they were loaded.
enum hw_status hw_block_state_size(hw_cache* cache, int32_t block, size_t* size, char* err, size_t err_size);
// size: what hw_block_state_size says, else HW_ERROR_ARGUMENT. Errors: also HW_ERROR_MEMORY, HW_ERROR_COMPUTE (moves
// that were begun cannot be finished); data hold anything then.
enum hw_status hw_block_read(hw_cache* cache, int32_t block, void* data, size_t size, char* err, size_t err_size);
// A new block of such bytes; it goes on as the old one would have. Errors: HW_ERROR_ARGUMENT (the data are damaged,
// hold an infinity or a NaN, or are of a cache whose fingerprint is another: the difference is named),
// HW_ERROR_CACHE_FULL, HW_ERROR_MEMORY, HW_ERROR_COMPUTE.
enum hw_status hw_block_write(hw_cache* cache, const void* data, size_t size, int32_t* block, char* err,
                              size_t err_size);

// What a view feeds, and what it wants of the pass: outputs are absent where they are 0 or NULL.
struct hw_view {
    const int32_t* blocks;  // [n_blocks], the view's own block last
    int32_t n_blocks;
    const int32_t* tokens;  // [n_tokens], appended to the own block
    int32_t n_tokens;
    int32_t n_outputs;       // of the last so many of these tokens, 0 to n_tokens: the vocabulary is computed for those
    float* logits;           // [n_outputs, n_vocab]: what comes after each of them
    const int32_t* targets;  // [n_outputs]: a token for each
    float* logprobs;      // [n_outputs]: its natural log-probability, before any sampler. With targets, or not at all
    hw_sampler* sampler;  // chooses from the logits of the last token; needs n_outputs >= 1, and sampled
    int32_t* sampled;     // the chosen token, which counts as written; -1: the sampler could choose none
    float* sampled_logprob;  // its natural log-probability, before any sampler. Needs a sampler
    int32_t n_top;           // so many of the tokens that could come here are told, 0 to n_vocab. With sampled_logprob
    int32_t* top_tokens;     // [n_top], the likeliest first; of equal ones the first in the vocabulary
    float* top_logprobs;     // [n_top]
};

// One forward pass of all views. Every query sees all tokens of the other blocks of its view, those of this very pass
// included, and its own block causally. Views that share no block cost the attention of each, as in calls of their own.
// Then the samplers of all views choose, on the model's threads.
// A sampler that can choose no token (none is allowed, or no logit is finite) leaves -1 in its view: the call is HW_OK,
// all views are fed, and the others have their tokens.
// Errors, where no sampler has chosen yet: HW_ERROR_ARGUMENT (unknown block, a block twice in a view, own block of two
// views, token or target out of range, no tokens, outputs that do not fit together, one sampler in two views, a sampler
// of a model with another vocabulary), HW_ERROR_BATCH, HW_ERROR_CACHE_FULL, HW_ERROR_MEMORY (n_outputs rows of the
// vocabulary are made at once: ask for fewer), HW_ERROR_COMPUTE.
enum hw_status hw_decode(hw_cache* cache, const struct hw_view* views, int32_t n_views, char* err, size_t err_size);

// Run-ahead prefill (arXiv 2405.05329): a prompt is cut into chunks, and each of several processes computes one, in a
// cache of its own. In every layer each one receives the keys and values of all tokens before its chunk, sends what
// others need, and attends. The last one has all.
typedef bool (*hw_layer_callback)(int32_t layer, void* user_data);

// What is computed elsewhere of the tokens that a view feeds: the first ones, in runs. layers[l] is the caller's memory
// for layer l, run after run and then the chunk itself, each hw_cache_layer_bytes of its tokens: cells as they are
// stored (docs/block-format.md). Keys are rotated to their place in the block and its origin: where they come from, the
// block is to have the same one. It has where it was empty and stands alone in its view.
struct hw_chunk {
    const int32_t* runs;  // [n_runs] tokens of each run; may be NULL if there are none
    int32_t n_runs;
    void* const* layers;         // [hw_cache_n_layers]; may be NULL if there are no runs, and own cells are not wanted
    bool wants_own;              // the chunk's own cells are put behind the runs, before exchange is called
    hw_layer_callback exchange;  // returns when the runs lie in layers[l]; the memory stays the caller's
    void* user_data;
};

// Layers that store keys and values, and the bytes of n of their tokens (0 out of range).
int32_t hw_cache_n_layers(hw_cache* cache);
size_t hw_cache_layer_bytes(hw_cache* cache, int32_t layer, int32_t n);
bool hw_cache_is_windowed(hw_cache* cache, int32_t layer);  // whether it has a sliding window; false out of range

// hw_decode of one view whose first tokens are computed elsewhere. Its outputs are of the others, of which there is one
// at least: they are computed in one pass, and must fit n_batch. The callback runs on this thread, once a layer, as
// soon as its own keys and values are stored and before anything of it is attended to; it returns false to stop, and
// must not call this cache, which waits. Cells that were promised are the block's when the call is HW_OK;
// until then no other call sees them, and afterwards it is as if the block had been fed all of the tokens.
// Errors: as hw_decode; HW_ERROR_COMPUTE also where the callback stopped; HW_ERROR_UNSUPPORTED (recurrent layers, or a
// layer that stores something after it has attended, named).
enum hw_status hw_decode_chunk(hw_cache* cache, const struct hw_view* view, const struct hw_chunk* chunk, char* err,
                               size_t err_size);

#ifdef __cplusplus
}
#endif
#endif
