// The C boundary: handles, and exceptions turned into a status and a text. Nothing else.
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

#include "base/error.h"
#include "base/log.h"
#include "engine/cache.h"
#include "hogwild.h"
#include "model/model.h"
#include "model/sampler.h"

struct hw_model {
    hw::ModelPtr model;
};
struct hw_cache {
    hw::Cache cache;
};

namespace hw {

namespace {

hw_status report(hw_status status, const char* text, char* err, size_t err_size) noexcept {
    if (err != nullptr && err_size > 0) {
        std::snprintf(err, err_size, "%s", text);
    }
    return status;
}

template <typename Call>
hw_status guard(char* err, size_t err_size, Call call) noexcept {
    LogScope log;  // around the try: what is freed when an error unwinds has something to say too
    try {
        call();
        return HW_OK;
    } catch (const Error& error) {
        return report(error.status(), error.what(), err, err_size);
    } catch (const std::bad_alloc&) {
        return report(HW_ERROR_MEMORY, "out of memory", err, err_size);
    } catch (const std::exception& error) {
        return report(HW_ERROR_COMPUTE, error.what(), err, err_size);
    } catch (...) {
        return report(HW_ERROR_COMPUTE, "unknown exception", err, err_size);
    }
}

template <typename T>
void check_not_null(const T* pointer, const char* name) {
    if (pointer == nullptr) {
        fail(HW_ERROR_ARGUMENT, "%s is NULL", name);
    }
}

int32_t copy_text(const char* text, char* buf, size_t size) noexcept {
    return text == nullptr ? -1 : std::snprintf(buf, size, "%s", text);
}

template <typename IsFused>
int32_t fill_rows(const BytesByPlace& bytes, hw_placement* rows, int32_t max, IsFused is_fused) {
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

// Where its room is too small, llama.cpp says how much it needs by a negative number. -1: it threw.
template <typename Call>
int32_t full_size(Call call) noexcept {
    int32_t n = 0;
    const hw_status status = guard(nullptr, 0, [&] { n = call(); });
    return status != HW_OK || n == INT32_MIN ? -1 : n < 0 ? -n : n;
}

bool is_token(const hw_model* model, int32_t token) noexcept { return token >= 0 && token < model->model->n_vocab(); }

}  // namespace
}  // namespace hw

using hw::check_not_null;
using hw::guard;

extern "C" {

size_t hw_sizeof_model_params(void) { return sizeof(llama_model_params); }
size_t hw_sizeof_context_params(void) { return sizeof(llama_context_params); }

// -- devices

hw_status hw_rpc_load(const char* path, char* err, size_t err_size) {
    return guard(err, err_size, [&] { hw::load_rpc_backend(path); });
}

hw_status hw_rpc_server(const hw_rpc_server_params* params, char* err, size_t err_size) {
    return guard(err, err_size, [&] {
        check_not_null(params, "params");
        hw::run_rpc_server(*params);
    });
}

int32_t hw_devices(char* buf, size_t size) { return hw::copy_text(hw::list_devices().c_str(), buf, size); }

// -- model

hw_status hw_model_load(const hw_model_params* params, hw_model** model, char* err, size_t err_size) {
    return guard(err, err_size, [&] {
        check_not_null(params, "params");
        check_not_null(model, "model");
        *model = new hw_model{std::make_shared<hw::Model>(*params)};
    });
}

void hw_model_free(hw_model* model) {
    hw::LogScope log;
    delete model;
}

int32_t hw_model_n_vocab(const hw_model* model) { return model->model->n_vocab(); }
int32_t hw_model_n_ctx_train(const hw_model* model) { return model->model->n_ctx_train(); }
int32_t hw_model_n_threads(const hw_model* model) { return model->model->n_threads(); }
void* hw_model_llama(const hw_model* model) { return model->model->llama(); }

int32_t hw_model_description(const hw_model* model, char* buf, size_t size) {
    return llama_model_desc(model->model->llama(), buf, size);
}

int32_t hw_model_placement(const hw_model* model, hw_placement* rows, int32_t max) {
    return hw::fill_rows(model->model->placement(), rows, max, [](int32_t) { return false; });
}

int32_t hw_model_chat_template(const hw_model* model, char* buf, size_t size) {
    return hw::copy_text(llama_model_chat_template(model->model->llama(), nullptr), buf, size);
}

int32_t hw_model_n_metadata(const hw_model* model) { return llama_model_meta_count(model->model->llama()); }

int32_t hw_model_metadata_key(const hw_model* model, int32_t index, char* buf, size_t size) {
    return llama_model_meta_key_by_index(model->model->llama(), index, buf, size);
}

int32_t hw_model_metadata_value(const hw_model* model, int32_t index, char* buf, size_t size) {
    return llama_model_meta_val_str_by_index(model->model->llama(), index, buf, size);
}

// -- tokenizer

int32_t hw_token_special(const hw_model* model, hw_token_kind kind) {
    const llama_vocab* vocab = model->model->vocab();
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
}

bool hw_token_is_end(const hw_model* model, int32_t token) {
    return hw::is_token(model, token) && llama_vocab_is_eog(model->model->vocab(), token);
}

bool hw_token_is_control(const hw_model* model, int32_t token) {
    return hw::is_token(model, token) && model->model->has_vocab() &&
           llama_vocab_is_control(model->model->vocab(), token);
}

int32_t hw_tokenize(const hw_model* model, const char* text, size_t n_bytes, bool add_special, bool parse_special,
                    int32_t* tokens, int32_t max) {
    if (n_bytes > (size_t(1) << 30) || !model->model->has_vocab()) {
        return -1;
    }
    return hw::full_size([&] {
        return llama_tokenize(model->model->vocab(), text, static_cast<int32_t>(n_bytes), tokens, max, add_special,
                              parse_special);
    });
}

int32_t hw_token_bytes(const hw_model* model, int32_t token, bool special, char* buf, int32_t size) {
    if (!hw::is_token(model, token)) {
        return -1;
    }
    if (!model->model->has_vocab()) {
        return 0;
    }
    return hw::full_size([&] { return llama_token_to_piece(model->model->vocab(), token, buf, size, 0, special); });
}

int32_t hw_detokenize(const hw_model* model, const int32_t* tokens, int32_t n_tokens, bool special, char* buf,
                      int32_t size) {
    for (int32_t i = 0; i < n_tokens; i++) {
        if (!hw::is_token(model, tokens[i])) {
            return -1;
        }
    }
    return hw::full_size([&] {
        return llama_detokenize(model->model->vocab(), tokens, n_tokens, buf, size, /*remove_special=*/false, special);
    });
}

// -- cache

hw_status hw_cache_new(hw_model* model, const hw_cache_params* params, hw_cache** cache, char* err, size_t err_size) {
    return guard(err, err_size, [&] {
        check_not_null(model, "model");
        check_not_null(params, "params");
        check_not_null(cache, "cache");
        *cache = new hw_cache{{model->model, *params}};
    });
}

void hw_cache_free(hw_cache* cache) {
    hw::LogScope log;
    delete cache;
}

int32_t hw_cache_n_free(hw_cache* cache) { return cache->cache.n_free(); }
size_t hw_cache_n_bytes(hw_cache* cache) { return cache->cache.n_bytes(); }
int64_t hw_cache_n_moved(hw_cache* cache) { return cache->cache.n_moved(); }
int64_t hw_cache_n_mirrored(hw_cache* cache) { return cache->cache.n_mirrored(); }
int32_t hw_cache_placement(hw_cache* cache, hw_placement* rows, int32_t max) {
    return hw::fill_rows(cache->cache.placement(), rows, max,
                         [&](int32_t layer) { return cache->cache.is_fused(layer); });
}

hw_status hw_block_new(hw_cache* cache, int32_t* block, char* err, size_t err_size) {
    return guard(err, err_size, [&] { *block = cache->cache.new_block(); });
}

hw_status hw_block_len(hw_cache* cache, int32_t block, int32_t* len, char* err, size_t err_size) {
    return guard(err, err_size, [&] { *len = cache->cache.len(block); });
}

hw_status hw_block_free(hw_cache* cache, int32_t block, char* err, size_t err_size) {
    return guard(err, err_size, [&] { cache->cache.free_block(block); });
}

hw_status hw_block_truncate(hw_cache* cache, int32_t block, int32_t n, char* err, size_t err_size) {
    return guard(err, err_size, [&] { cache->cache.truncate(block, n); });
}

hw_status hw_block_append(hw_cache* cache, int32_t dst, int32_t src, char* err, size_t err_size) {
    return guard(err, err_size, [&] { cache->cache.append(dst, src); });
}

hw_status hw_decode(hw_cache* cache, const hw_view* views, int32_t n_views, char* err, size_t err_size) {
    return guard(err, err_size, [&] { cache->cache.decode(views, n_views); });
}

hw_status hw_cache_check(hw_cache* cache, char* err, size_t err_size) {
    return guard(err, err_size, [&] { cache->cache.check(); });
}

// -- sampler

hw_status hw_sampler_new(hw_model* model, const hw_sampler_params* params, hw_sampler** sampler, char* err,
                         size_t err_size) {
    return guard(err, err_size, [&] {
        check_not_null(model, "model");
        check_not_null(params, "params");
        check_not_null(sampler, "sampler");
        *sampler = new hw_sampler{{model->model, *params}};
    });
}

void hw_sampler_free(hw_sampler* sampler) {
    hw::LogScope log;
    delete sampler;
}

void hw_sampler_reset(hw_sampler* sampler) { sampler->sampler.reset(); }

hw_status hw_sampler_sample(hw_sampler* sampler, const float* logits, int32_t* token, char* err, size_t err_size) {
    return guard(err, err_size, [&] {
        check_not_null(logits, "logits");
        *token = sampler->sampler.sample(logits);
    });
}

}  // extern "C"
