// Parts of the library alone, for tests.
#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "api/handles.h"
#include "base/c-enum.h"
#include "base/log.h"
#include "cache/block-maps.h"
#include "engine/pass-size.h"
#include "engine/thread-count.h"
#include "hogwild-parts.h"
#include "products/weight-matrix.h"

struct hw_recurrence {
    explicit hw_recurrence(std::vector<hw::Recurrence> one) : recurrence(one.front()), maps(std::move(one)) {}

    hw::Recurrence recurrence;
    hw::BlockMaps maps;
    size_t n_links = 0;
};

namespace {

using namespace hw;

void rewrite(BlockMaps& maps, int32_t block, int64_t n_tokens) {
    std::vector<std::byte> data(maps.n_bytes(block));
    maps.read(block, data.data());
    bool is_anchored = false;
    Segments segments = maps.from_bytes(data.data(), data.size(), n_tokens, &is_anchored);
    maps.add(block, is_anchored);
    maps.replace(block, std::move(segments));
}

void change_blocks(BlockMaps& maps, int32_t change, int32_t a, int32_t b, int32_t c) {
    switch (change) {
        case HW_RECURRENCE_ADD:
            return maps.add(a, b != 0);
        case HW_RECURRENCE_REMOVE:
            return maps.remove(a);
        case HW_RECURRENCE_TRUNCATE:
            maps.check_cut(a, b);
            return maps.truncate(a, b);
        case HW_RECURRENCE_SPLIT:
            maps.check_cut(a, b);
            maps.add(c, maps.is_anchored(a), maps.of(a).size());
            return maps.split(a, b, c);
        case HW_RECURRENCE_APPEND:
            maps.replace(a, maps.joined(a, b));
            return maps.replace(b, {});
        case HW_RECURRENCE_COPY:
            maps.add(b, maps.is_anchored(a));
            return maps.replace(b, maps.of(a));
        case HW_RECURRENCE_MARK:
            return maps.mark(a);
        case HW_RECURRENCE_REWRITE:
            return rewrite(maps, a, b);
        default:
            fail(HW_ERROR_ARGUMENT, "change is %d, no value of hw_recurrence_change", change);
    }
}

std::vector<FedView> views_of(const hw_recurrence_pass& pass) {
    std::vector<FedView> views;
    const int32_t* blocks = pass.blocks;
    int32_t token = 0;
    for (int32_t i = 0; i < pass.n_views; i++) {
        views.push_back({blocks, pass.n_blocks[i], token, pass.n_tokens[i]});
        blocks += pass.n_blocks[i];
        token += pass.n_tokens[i];
    }
    return views;
}

void run_part(const Recurrence& recurrence, const RecurrentPlan& plan, const hw_recurrence_pass& pass, int ith) {
    const RecurrenceShape& shape = recurrence.shape;
    const auto n_bytes = [](int64_t n) { return static_cast<size_t>(n) * sizeof(float); };
    const size_t key = n_bytes(shape.d_k);
    const size_t value = n_bytes(shape.d_v);
    const float* const* in = pass.inputs;
    std::vector<float> scratch(recurrent_scratch(shape, plan.n_tokens));
    const auto rows = [&](int i, int64_t n, size_t size) -> HeadRows {
        return {in[i], size * static_cast<size_t>(n), size, n};
    };
    const HeadRows none = {};
    switch (shape.kind) {
        case RecurrenceKind::convolution:
            return run_convolution(plan, recurrence, {in[0], n_bytes(shape.n_head), in[1], pass.out}, ith,
                                   pass.n_threads);
        case RecurrenceKind::diagonal:
            return run_diagonal(plan, recurrence,
                                {in[0], n_bytes(shape.n_head * shape.d_v), in[1], n_bytes(shape.n_head), in[2], in[3],
                                 key * static_cast<size_t>(pass.n_groups), in[4],
                                 key * static_cast<size_t>(pass.n_groups), pass.n_groups, pass.out},
                                scratch.data(), ith, pass.n_threads);
        case RecurrenceKind::delta:
            return run_delta(
                plan, recurrence,
                {rows(0, pass.n_groups, key), rows(1, pass.n_groups, key), rows(2, shape.n_head, value),
                 rows(3, shape.n_head, n_bytes(shape.n_decay)), rows(4, shape.n_head, n_bytes(1)), pass.out},
                scratch.data(), ith, pass.n_threads);
        case RecurrenceKind::linear:
            return run_linear(plan, recurrence,
                              {rows(0, shape.n_head, key), rows(1, shape.n_head, key), rows(2, shape.n_head, value),
                               in[3] != nullptr ? rows(3, shape.n_head, key) : none, in[4], pass.out},
                              scratch.data(), ith, pass.n_threads);
        case RecurrenceKind::wkv7:
            return run_wkv7(
                plan, recurrence,
                {rows(0, shape.n_head, key), rows(1, shape.n_head, key), rows(2, shape.n_head, key),
                 rows(3, shape.n_head, value), rows(4, shape.n_head, key), rows(5, shape.n_head, key), pass.out},
                scratch.data(), ith, pass.n_threads);
    }
}

std::vector<float> product(ggml_type type, int64_t n_in, int64_t n_out, const void* weights, const float* x,
                           int64_t n_rows, const std::string& by) {
    if (!kind_of(type)) {
        fail(HW_ERROR_UNSUPPORTED, "there is no kernel for weights of type %d", static_cast<int>(type));
    }
    if (n_in % ggml_blck_size(type) != 0 || (n_out % 8 != 0 && type != GGML_TYPE_Q6_K) || n_in < 1 || n_out < 1 ||
        n_rows < 1) {
        fail(HW_ERROR_ARGUMENT, "weights [%d, %d] and %d rows cannot be multiplied", static_cast<int>(n_in),
             static_cast<int>(n_out), static_cast<int>(n_rows));
    }
    const ProductKernel* kernel = by == product_plain.name ? &product_plain : nullptr;
    for (const ProductKernel* const* one = product_kernels(); *one != nullptr; ++one) {
        kernel = by == (*one)->name ? *one : kernel;
    }
    if (kernel == nullptr && by != "ggml") {
        fail(HW_ERROR_UNSUPPORTED, "this CPU has no kernel %s", by.c_str());
    }
    const LogScope log;
    const WeightMatrix matrix(type, n_in, n_out, weights);
    return kernel == nullptr ? matrix.multiply(x, n_rows) : matrix.multiply(*kernel, x, n_rows);
}

}  // namespace

using hw::answer;
using hw::guard;
using hw::not_null;

extern "C" {

hw_status hw_cache_check(hw_cache* cache, char* err, size_t err_size) {
    return guard(err, err_size, [&] { hw::of(cache).blocks()->check(); });
}

int32_t hw_pass_size(int32_t n) { return hw::rows_for(n); }

const char* hw_product_kernels(void) {
    static const std::string names = [] {
        std::string all;
        for (const hw::ProductKernel* const* one = hw::product_kernels(); *one != nullptr; ++one) {
            all += std::string((*one)->name) + ",";
        }
        return all + hw::product_plain.name;
    }();
    return names.c_str();
}

hw_status hw_product(int32_t type, int64_t n_in, int64_t n_out, const void* weights, const float* x, int64_t n_rows,
                     const char* by, float* out, char* err, size_t err_size) {
    return guard(err, err_size, [&] {
        not_null(static_cast<const std::byte*>(weights), "weights");
        not_null(x, "x");
        not_null(out, "out");
        not_null(by, "by");
        if (type < 0 || type >= GGML_TYPE_COUNT) {
            hw::fail(HW_ERROR_ARGUMENT, "type %d is no ggml_type", type);
        }
        const std::vector<float> result = product(static_cast<ggml_type>(type), n_in, n_out, weights, x, n_rows, by);
        std::copy(result.begin(), result.end(), out);
    });
}

hw_status hw_thread_counts(int32_t n_threads, const hw_pass_time* passes, int32_t n, int32_t* counts, char* err,
                           size_t err_size) {
    return guard(err, err_size, [&] {
        const hw_pass_time* pass = &not_null(passes, "passes");
        not_null(counts, "counts");
        hw::ThreadCount count(n_threads);
        *counts = count.n();
        for (int32_t i = 0; i < n; i++) {
            count.note(pass[i]);
            *++counts = count.n();
        }
    });
}

hw_status hw_recurrence_new(const hw_recurrence_params* params, hw_recurrence** recurrence, char* err,
                            size_t err_size) {
    return guard(err, err_size, [&] {
        hw_recurrence*& made = not_null(recurrence, "recurrence");
        const hw_recurrence_params& p = not_null(params, "params");
        const auto kind = static_cast<hw::RecurrenceKind>(p.kind);
        const hw::RecurrenceShape shape = {kind, p.n_head, p.d_k, p.d_v, p.n_decay, p.scale, p.slope};
        std::vector<hw::Recurrence> one = {{shape, 0, 0, 0}};
        p.n_rows < 0 ? hw::lay_out(&one) : hw::lay_out(&one, p.n_rows);
        made = new hw_recurrence(std::move(one));
    });
}

void hw_recurrence_free(hw_recurrence* recurrence) { delete recurrence; }

hw_status hw_recurrence_change(hw_recurrence* recurrence, enum hw_recurrence_change change, int32_t a, int32_t b,
                               int32_t c, char* err, size_t err_size) {
    return guard(err, err_size,
                 [&] { change_blocks(not_null(recurrence, "recurrence").maps, number_of(change), a, b, c); });
}

int32_t hw_recurrence_last_cut(hw_recurrence* recurrence, int32_t block, int32_t n) {
    return answer(-1, [&] { return static_cast<int32_t>(not_null(recurrence, "recurrence").maps.last_cut(block, n)); });
}

int32_t hw_recurrence_n_segments(hw_recurrence* recurrence, int32_t block) {
    return answer(-1, [&] { return static_cast<int32_t>(not_null(recurrence, "recurrence").maps.of(block).size()); });
}

hw_recurrence_counts hw_recurrence_count(hw_recurrence* recurrence) {
    return answer(hw_recurrence_counts{}, [&] {
        const hw_recurrence& one = not_null(recurrence, "recurrence");
        return hw_recurrence_counts{static_cast<int64_t>(one.n_links), one.maps.n_joined(),
                                    static_cast<int64_t>(one.maps.n_bytes_used())};
    });
}

hw_status hw_recurrence_run(hw_recurrence* recurrence, const hw_recurrence_pass* pass, char* err, size_t err_size) {
    return guard(err, err_size, [&] {
        hw_recurrence& one = not_null(recurrence, "recurrence");
        const hw_recurrence_pass& wanted = not_null(pass, "pass");
        hw::MapPass maps = one.maps.plan(views_of(wanted));
        one.n_links = maps.plan.links.size();
        std::vector<std::thread> threads;
        for (int ith = 0; ith < wanted.n_threads; ith++) {
            threads.emplace_back([&, ith] { run_part(one.recurrence, maps.plan, wanted, ith); });
        }
        for (std::thread& thread : threads) {
            thread.join();
        }
        if (!wanted.fails) {
            one.maps.commit(std::move(maps));
        }
    });
}

}  // extern "C"
