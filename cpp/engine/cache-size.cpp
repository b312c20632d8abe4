#include "engine/cache-size.h"

#include <algorithm>
#include <cstring>

#include "base/c-enum.h"
#include "base/error.h"
#include "base/memory.h"
#include "cache/block-maps.h"
#include "cache/kv-store.h"
#include "graph/source-graph.h"

namespace hw {

namespace {

// The kernel counts the keys of a block in floats.
constexpr int32_t max_n_ctx = 1 << 24;

static_assert(read_beyond >= flash_step, "attention reads cells that are open");

// What ggml can write rows of and read again. It has more types (i32, f64, q8_1, ...): those end the process.
constexpr ggml_type cache_types[] = {GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16, GGML_TYPE_Q8_0,  GGML_TYPE_Q5_1,
                                     GGML_TYPE_Q5_0, GGML_TYPE_Q4_1, GGML_TYPE_Q4_0, GGML_TYPE_IQ4_NL};

ggml_type type_named(const char* name, const char* what) {
    std::string known;
    for (const ggml_type type : cache_types) {
        if (name != nullptr && std::strcmp(ggml_type_name(type), name) == 0) {
            return type;
        }
        known += (known.empty() ? "" : ", ") + std::string(ggml_type_name(type));
    }
    fail(HW_ERROR_ARGUMENT, "%s is '%s': it must be one of %s", what, name ? name : "(null)", known.c_str());
}

// Cells beyond n_ctx, so that a cache that is nearly full need not pack its blocks at every pass, nor a full one find
// room elsewhere to append one block to another; and that flash attention finds room for its mirrors.
int64_t headroom(int64_t n_ctx, bool has_mirrors) { return 64 + n_ctx / 32 + (has_mirrors ? n_ctx / 8 : 0); }

// Cells that a block goes by when it moves by less than its length: the fewer, the more copies that takes. And as many
// as rows that fill up, but for mirrors' where there are many.
int64_t scratch_cells(int64_t n_ctx) { return std::clamp<int64_t>(n_ctx / 32, 64, 512); }

// Tokens that layers with a window keep to be cut there, where they have as many windows. Memory is worth more.
constexpr int64_t least_kept = 1024;

// Bytes of each memory that a cache may take. All host memory is one, whatever device uses it.
class Limits {
  public:
    // n_states: of them, for states of recurrent layers.
    Limits(const KvBytes& asked, size_t n_mapped, double share, size_t n_states) : n_states_(n_states) {
        for (const auto& [type, n_bytes] : asked) {
            limits_[type] = part(free_memory(type), 0, share);
        }
        host_ = part(free_host_memory(), n_mapped, share);
    }

    bool allow(const KvBytes& asked) const {
        size_t n_host = n_states_;
        for (const auto& [type, n_bytes] : asked) {
            n_host += ggml_backend_buft_is_host(type) ? n_bytes : 0;
            if (n_bytes > limits_.at(type)) {
                return false;
            }
        }
        return n_host <= host_;
    }

  private:
    // SIZE_MAX: nothing is known, so nothing is forbidden.
    static size_t part(size_t free, size_t n_taken, double share) {
        return free == SIZE_MAX ? free
                                : static_cast<size_t>(share * static_cast<double>(free - std::min(free, n_taken)));
    }

    KvBytes limits_;
    size_t host_;
    size_t n_states_;
};

}  // namespace

CacheParams checked(const hw_cache_params& params, const Model& model) {
    if (model.vocab_only()) {
        fail(HW_ERROR_ARGUMENT, "the model was loaded with vocab_only: load it without, to have weights to run");
    }
    if (params.n_ctx < 1 || params.n_ctx > max_n_ctx) {
        fail(HW_ERROR_ARGUMENT, "n_ctx is %d: it must be 1 to %d", params.n_ctx, max_n_ctx);
    }
    if (params.n_batch < 1 || params.n_batch > 8192) {
        fail(HW_ERROR_ARGUMENT, "n_batch is %d: it must be 1 to 8192", params.n_batch);
    }
    const int32_t attention = number_of(params.attention);
    if (attention < HW_ATTENTION_AUTO || attention > HW_ATTENTION_COMPOSED) {
        fail(HW_ERROR_ARGUMENT, "attention is %d, no value of hw_attention", attention);
    }
    if (params.n_windows < 1) {
        fail(HW_ERROR_ARGUMENT, "n_windows is %d: it must be 1 at least", params.n_windows);
    }
    return {params.n_ctx,     params.n_batch,  type_named(params.type_k, "type_k"), type_named(params.type_v, "type_v"),
            params.attention, params.n_windows};
}

std::vector<SpaceSize> sizes_of_spaces(const ModelSpec& spec, const CacheParams& params,
                                       const AttentionChoice& choice) {
    std::vector<SpaceSize> sizes;
    for (const Window& window : spec.windows()) {
        const int64_t needed = int64_t{params.n_windows} * window.n + params.n_batch;
        const int64_t n = window.n > 0 ? std::min<int64_t>(needed, params.n_ctx) : params.n_ctx;
        const int64_t n_cells = n + headroom(n, choice.may_mirror());
        const ScratchCells scratch = {n_cells, scratch_cells(n)};
        const bool drops = n < params.n_ctx;
        const int64_t n_first = window.n > 0 ? std::min<int64_t>(window.n + params.n_batch, n) : n;
        const int64_t n_kept =
            drops ? std::min<int64_t>(n, std::max<int64_t>(2 * window.n, least_kept) + params.n_batch) : n;
        const int64_t n_all = choice.padded(scratch.begin + scratch.n);
        sizes.push_back({n, n_cells, scratch, n_all, n_first, n_kept, window.n, drops});
    }
    return sizes;
}

std::vector<int64_t> n_all_of(const std::vector<SpaceSize>& sizes) {
    std::vector<int64_t> all;
    for (const SpaceSize& size : sizes) {
        all.push_back(size.n_all);
    }
    return all;
}

int32_t room_for(const ModelPtr& model, const CacheParams& params, double share) {
    if (!(share > 0.0 && share <= 1.0)) {
        fail(HW_ERROR_ARGUMENT, "share is %g: it must be above 0, and 1 at most", share);
    }
    GraphSource source(model, params.n_ctx);
    const ModelSpec& spec = source.spec();
    const AttentionChoice choice(spec, params.attention, params.type_k);
    const auto bytes = [&](int32_t n_ctx) {
        CacheParams smaller = params;
        smaller.n_ctx = n_ctx;
        return KvStore::bytes_for(spec.layers, n_all_of(sizes_of_spaces(spec, smaller, choice)), params.type_k,
                                  params.type_v);
    };
    const KvBytes asked = bytes(params.n_ctx);
    const Limits limits(asked, model->n_mapped_bytes(), share, BlockMaps::usual_bytes(spec.recurrences));
    if (limits.allow(asked)) {
        return params.n_ctx;
    }
    int32_t fits = 0;
    for (int32_t beyond = params.n_ctx; beyond - fits > 1;) {
        const int32_t middle = fits + (beyond - fits) / 2;
        (limits.allow(bytes(middle)) ? fits : beyond) = middle;
    }
    return fits;
}

}  // namespace hw
