// The C boundary: exceptions turned into a status and a text. Nothing else.
#include <algorithm>
#include <cstdio>

#include "api/handles.h"
#include "base/memory.h"

namespace hw {

namespace {

// How snprintf sees it: room for size bytes. -1: there is no such text.
int32_t copy_text(const char* text, char* buf, size_t size) {
    check_room(buf, size);
    return text == nullptr ? -1 : std::snprintf(buf, size, "%s", text);
}

template <typename IsFused>
int32_t fill_rows(const BytesByPlace& bytes, hw_placement* rows, int32_t max, IsFused is_fused) {
    check_room(rows, max);
    int32_t n = 0;
    for (const auto& [place, n_bytes] : bytes) {
        if (n < max) {
            ggml_backend_dev_t device =
                place.first != nullptr ? place.first : ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
            rows[n] = {ggml_backend_dev_name(device), ggml_backend_dev_description(device), place.second, n_bytes,
                       is_fused(place.second)};
        }
        n++;
    }
    return n;
}

// Where its room is too small, llama.cpp says how much it needs by a negative number.
int32_t full_size(int32_t n) { return n == INT32_MIN ? -1 : n < 0 ? -n : n; }

bool is_token(const Model& model, int32_t token) { return token >= 0 && token < model.n_vocab(); }

}  // namespace
}  // namespace hw

using hw::answer;
using hw::guard;
using hw::not_null;
using hw::of;

extern "C" {

size_t hw_sizeof_model_params(void) { return sizeof(llama_model_params); }
size_t hw_sizeof_context_params(void) { return sizeof(llama_context_params); }
size_t hw_sizeof_tensor(void) { return sizeof(ggml_tensor); }

size_t hw_free_host_memory(const char* root) {
    return answer<size_t>(0, [&] { return hw::free_host_memory(root != nullptr ? root : ""); });
}

// -- devices

hw_status hw_rpc_load(const char* path, char* err, size_t err_size) {
    return guard(err, err_size, [&] { hw::load_rpc_backend(path); });
}

hw_status hw_rpc_server(const hw_rpc_server_params* params, char* err, size_t err_size) {
    return guard(err, err_size, [&] { hw::run_rpc_server(not_null(params, "params")); });
}

int32_t hw_devices(char* buf, size_t size) {
    return answer(-1, [&] { return hw::copy_text(hw::list_devices().c_str(), buf, size); });
}

int32_t hw_gpus(char* buf, size_t size) {
    return answer(-1, [&] { return hw::copy_text(hw::list_gpus().c_str(), buf, size); });
}

// -- model

hw_status hw_model_load(const hw_model_params* params, hw_model** model, char* err, size_t err_size) {
    return guard(err, err_size, [&] {
        hw_model*& made = not_null(model, "model");
        made = new hw_model{std::make_shared<hw::Model>(not_null(params, "params"))};
    });
}

void hw_model_free(hw_model* model) { hw::free_handle(model); }

int32_t hw_model_n_vocab(const hw_model* model) {
    return answer(-1, [&] { return of(model).n_vocab(); });
}

int32_t hw_model_n_ctx_train(const hw_model* model) {
    return answer(-1, [&] { return of(model).n_ctx_train(); });
}

size_t hw_model_n_mapped_bytes(const hw_model* model) {
    return answer<size_t>(0, [&] { return of(model).n_mapped_bytes(); });
}

int32_t hw_model_n_threads(const hw_model* model) {
    return answer(-1, [&] { return of(model).n_threads(); });
}

void* hw_model_llama(const hw_model* model) {
    return answer<void*>(nullptr, [&] { return of(model).llama(); });
}

int32_t hw_model_description(const hw_model* model, char* buf, size_t size) {
    return answer(-1, [&] {
        hw::check_room(buf, size);
        return llama_model_desc(of(model).llama(), buf, size);
    });
}

int32_t hw_model_placement(const hw_model* model, hw_placement* rows, int32_t max) {
    return answer(-1, [&] { return hw::fill_rows(of(model).placement(), rows, max, [](int32_t) { return false; }); });
}

int32_t hw_model_chat_template(const hw_model* model, char* buf, size_t size) {
    return answer(-1, [&] { return hw::copy_text(llama_model_chat_template(of(model).llama(), nullptr), buf, size); });
}

int32_t hw_model_n_metadata(const hw_model* model) {
    return answer(-1, [&] { return llama_model_meta_count(of(model).llama()); });
}

int32_t hw_model_metadata_key(const hw_model* model, int32_t index, char* buf, size_t size) {
    return answer(-1, [&] {
        hw::check_room(buf, size);
        return llama_model_meta_key_by_index(of(model).llama(), index, buf, size);
    });
}

int32_t hw_model_metadata_value(const hw_model* model, int32_t index, char* buf, size_t size) {
    return answer(-1, [&] {
        hw::check_room(buf, size);
        return llama_model_meta_val_str_by_index(of(model).llama(), index, buf, size);
    });
}

// -- tokenizer

int32_t hw_token_special(const hw_model* model, hw_token_kind kind) {
    return answer(-1, [&] {
        const llama_vocab* vocab = of(model).vocab();
        switch (kind) {
            case HW_TOKEN_BOS:
                return llama_vocab_bos(vocab);
            case HW_TOKEN_EOS:
                return llama_vocab_eos(vocab);
            case HW_TOKEN_EOT:
                return llama_vocab_eot(vocab);
            case HW_TOKEN_NEWLINE:
                return llama_vocab_nl(vocab);
        }
        return -1;
    });
}

bool hw_token_is_end(const hw_model* model, int32_t token) {
    return answer(false,
                  [&] { return hw::is_token(of(model), token) && llama_vocab_is_eog(of(model).vocab(), token); });
}

bool hw_token_is_control(const hw_model* model, int32_t token) {
    return answer(false, [&] {
        return hw::is_token(of(model), token) && of(model).has_vocab() &&
               llama_vocab_is_control(of(model).vocab(), token);
    });
}

int32_t hw_tokenize(const hw_model* model, const char* text, size_t n_bytes, bool add_special, bool parse_special,
                    int32_t* tokens, int32_t max) {
    return answer(-1, [&] {
        hw::check_room(text, n_bytes);
        hw::check_room(tokens, max);
        if (n_bytes > (size_t(1) << 30) || !of(model).has_vocab()) {
            return -1;
        }
        return hw::full_size(llama_tokenize(of(model).vocab(), text, static_cast<int32_t>(n_bytes), tokens, max,
                                            add_special, parse_special));
    });
}

int32_t hw_token_bytes(const hw_model* model, int32_t token, bool special, char* buf, int32_t size) {
    return answer(-1, [&] {
        hw::check_room(buf, size);
        if (!hw::is_token(of(model), token)) {
            return -1;
        }
        if (!of(model).has_vocab()) {
            return 0;
        }
        return hw::full_size(llama_token_to_piece(of(model).vocab(), token, buf, size, 0, special));
    });
}

int32_t hw_detokenize(const hw_model* model, const int32_t* tokens, int32_t n_tokens, bool special, char* buf,
                      int32_t size) {
    return answer(-1, [&] {
        hw::check_room(tokens, n_tokens);
        hw::check_room(buf, size);
        for (int32_t i = 0; i < n_tokens; i++) {
            if (!hw::is_token(of(model), tokens[i])) {
                return -1;
            }
        }
        return hw::full_size(llama_detokenize(of(model).vocab(), tokens, n_tokens, buf, size,
                                              /*remove_special=*/false, special));
    });
}

// -- cache

hw_status hw_cache_new(hw_model* model, const hw_cache_params* params, hw_cache** cache, char* err, size_t err_size) {
    return guard(err, err_size, [&] {
        hw_cache*& made = not_null(cache, "cache");
        const hw::ModelPtr& of_model = not_null(model, "model").model;
        made = new hw_cache{{of_model, hw::checked(not_null(params, "params"), *of_model)}};
    });
}

hw_status hw_cache_room(hw_model* model, const hw_cache_params* params, double share, int32_t* n_ctx, char* err,
                        size_t err_size) {
    return guard(err, err_size, [&] {
        int32_t& room = not_null(n_ctx, "n_ctx");
        const hw::ModelPtr& of_model = not_null(model, "model").model;
        room = hw::room_for(of_model, hw::checked(not_null(params, "params"), *of_model), share);
    });
}

void hw_cache_free(hw_cache* cache) { hw::free_handle(cache); }

int32_t hw_cache_n_free(hw_cache* cache) {
    return answer(-1, [&] { return static_cast<int32_t>(of(cache).blocks()->n_free()); });
}

int32_t hw_cache_n_windowed(hw_cache* cache) {
    return answer(-1, [&] { return static_cast<int32_t>(of(cache).n_windowed()); });
}

size_t hw_cache_n_bytes(hw_cache* cache) {
    return answer<size_t>(0, [&] { return of(cache).n_bytes(); });
}

int32_t hw_cache_n_recurrences(hw_cache* cache) {
    return answer(-1, [&] { return of(cache).n_recurrences(); });
}

hw_counts hw_cache_counts(hw_cache* cache) {
    return answer(hw_counts{-1, -1, -1, -1, -1, -1}, [&] { return of(cache).counts(); });
}

int32_t hw_cache_placement(hw_cache* cache, hw_placement* rows, int32_t max) {
    return answer(-1, [&] {
        return hw::fill_rows(of(cache).placement(), rows, max,
                             [&](int32_t layer) { return of(cache).is_fused(layer); });
    });
}

int32_t hw_cache_blocks(hw_cache* cache, int32_t* ids, int32_t* lens, int32_t max) {
    return answer(-1, [&] {
        hw::check_room(ids, max);
        hw::check_room(lens, max);
        const hw::LockedBlocks blocks = of(cache).blocks();
        int32_t n = 0;
        for (const auto& [block, run] : blocks->table().runs()) {
            if (n < max) {
                ids[n] = block;
                lens[n] = static_cast<int32_t>(run.len);
            }
            n++;
        }
        return n;
    });
}

int32_t hw_cache_weights(hw_cache* cache, hw_weight_share* rows, int32_t max) {
    return answer(-1, [&] {
        hw::check_room(rows, max);
        const std::vector<hw_weight_share>& weights = of(cache).weights();
        const size_t n = std::min(weights.size(), static_cast<size_t>(std::max(max, 0)));
        std::copy_n(weights.begin(), n, rows);
        return static_cast<int32_t>(weights.size());
    });
}

hw_cell_size hw_cache_cell_size(hw_cache* cache) {
    return answer(hw_cell_size{0.0, 0.0}, [&] { return of(cache).cell_size(); });
}

hw_status hw_cache_pass_size(hw_cache* cache, int32_t n, int32_t* rows, char* err, size_t err_size) {
    return guard(err, err_size, [&] { not_null(rows, "rows") = of(cache).pass_size(n); });
}

hw_status hw_block_new(hw_cache* cache, bool is_anchored, int32_t* block, char* err, size_t err_size) {
    return guard(err, err_size, [&] {
        int32_t& made = not_null(block, "block");
        made = of(cache).blocks()->add(is_anchored);
    });
}

hw_status hw_block_len(hw_cache* cache, int32_t block, int32_t* len, char* err, size_t err_size) {
    return guard(err, err_size, [&] { not_null(len, "len") = static_cast<int32_t>(of(cache).blocks()->len(block)); });
}

hw_status hw_block_tokens(hw_cache* cache, int32_t block, int32_t* tokens, int32_t max, int32_t* n, char* err,
                          size_t err_size) {
    return guard(err, err_size, [&] {
        hw::check_room(tokens, max);
        int32_t& n_tokens = not_null(n, "n");
        const hw::LockedBlocks blocks = of(cache).blocks();
        const std::vector<int32_t>& all = blocks->tokens(block);
        std::copy_n(all.begin(), std::min(static_cast<size_t>(max), all.size()), tokens);
        n_tokens = static_cast<int32_t>(all.size());
    });
}

hw_status hw_block_free(hw_cache* cache, int32_t block, char* err, size_t err_size) {
    return guard(err, err_size, [&] { of(cache).blocks()->free(block); });
}

hw_status hw_block_last_cut(hw_cache* cache, int32_t block, int32_t n, int32_t* at, char* err, size_t err_size) {
    return guard(err, err_size, [&] { not_null(at, "at") = of(cache).blocks()->last_cut(block, n); });
}

hw_status hw_block_mark(hw_cache* cache, int32_t block, char* err, size_t err_size) {
    return guard(err, err_size, [&] { of(cache).blocks()->mark(block); });
}

hw_status hw_block_truncate(hw_cache* cache, int32_t block, int32_t n, char* err, size_t err_size) {
    return guard(err, err_size, [&] { of(cache).blocks()->truncate(block, n); });
}

hw_status hw_block_split(hw_cache* cache, int32_t block, int32_t n, int32_t* tail, char* err, size_t err_size) {
    return guard(err, err_size, [&] {
        int32_t& made = not_null(tail, "tail");
        made = of(cache).blocks()->split(block, n);
    });
}

hw_status hw_block_append(hw_cache* cache, int32_t dst, int32_t src, char* err, size_t err_size) {
    return guard(err, err_size, [&] { of(cache).blocks()->append(dst, src); });
}

hw_status hw_block_copy(hw_cache* cache, int32_t block, int32_t* copy, char* err, size_t err_size) {
    return guard(err, err_size, [&] {
        int32_t& made = not_null(copy, "copy");
        made = of(cache).blocks()->copy(block);
    });
}

hw_status hw_block_state_size(hw_cache* cache, int32_t block, size_t* size, char* err, size_t err_size) {
    return guard(err, err_size, [&] { not_null(size, "size") = of(cache).state_size(block); });
}

hw_status hw_block_read(hw_cache* cache, int32_t block, void* data, size_t size, char* err, size_t err_size) {
    return guard(err, err_size, [&] {
        hw::check_room(data, size);
        of(cache).read(block, data, size);
    });
}

hw_status hw_block_write(hw_cache* cache, const void* data, size_t size, int32_t* block, char* err, size_t err_size) {
    return guard(err, err_size, [&] {
        hw::check_room(data, size);
        int32_t& made = not_null(block, "block");
        made = of(cache).write(data, size);
    });
}

hw_status hw_decode(hw_cache* cache, const hw_view* views, int32_t n_views, char* err, size_t err_size) {
    return guard(err, err_size, [&] { of(cache).decode(views, n_views); });
}

// -- sampler

hw_status hw_sampler_new(hw_model* model, const hw_sampler_params* params, hw_sampler** sampler, char* err,
                         size_t err_size) {
    return guard(err, err_size, [&] {
        hw_sampler*& made = not_null(sampler, "sampler");
        made = new hw_sampler{{not_null(model, "model").model, not_null(params, "params")}};
    });
}

void hw_sampler_free(hw_sampler* sampler) { hw::free_handle(sampler); }

void hw_sampler_reset(hw_sampler* sampler) {
    guard(nullptr, 0, [&] { of(sampler).reset(); });
}

hw_status hw_sampler_sample(hw_sampler* sampler, const float* logits, int32_t* token, char* err, size_t err_size) {
    return guard(err, err_size, [&] {
        int32_t& chosen = not_null(token, "token");
        chosen = of(sampler).sample(&not_null(logits, "logits"));
    });
}

}  // extern "C"
