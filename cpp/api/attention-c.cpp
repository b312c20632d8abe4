// Checks what comes from outside, then runs the kernel.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "ggml.h"
#include "hogwild-attention.h"
#include "kernel/kernel.h"

namespace {

using namespace hw;
using Args = hw_attention_args;

constexpr int32_t max_block_cells = 1 << 24;  // see AttnBlock
constexpr int32_t max_size = 1 << 16;         // of a head; keeps products of sizes far from overflow
constexpr int64_t max_rows = 1 << 28;         // heads times tokens, or times pairs
constexpr int max_threads = 1024;

static_assert(sizeof(AttnBlock) == 4 * sizeof(int32_t) && sizeof(AttnPair) == 6 * sizeof(int32_t));

const AttnBlock* blocks_of(const Args& a) { return reinterpret_cast<const AttnBlock*>(a.blocks); }
const AttnPair* pairs_of(const Args& a) { return reinterpret_cast<const AttnPair*>(a.pairs); }

bool in(int32_t value, int32_t least, int32_t most) { return least <= value && value <= most; }

bool shape_ok(const Args& a) {
    return in(a.n_tokens, 0, 1 << 20) && in(a.n_head, 1, 1 << 12) && in(a.n_head_kv, 1, a.n_head) &&
           a.n_head % a.n_head_kv == 0 && int64_t{a.n_head} * std::max(a.n_tokens, a.n_pairs) <= max_rows &&
           in(a.d_k, 1, max_size) && in(a.d_v, 1, max_size) && a.n_cells >= 0 && a.n_blocks >= 0 && a.n_pairs >= 0 &&
           in(a.n_runs, 0, 1 << 16) && (a.n_tokens == 0 || a.out);
}

bool cache_ok(const void* data, int32_t type, int32_t d, int64_t nb_cell, int64_t nb_head) {
    if (!in(type, 0, GGML_TYPE_COUNT - 1) || nb_cell < 0 || nb_head < 0) return false;
    const ggml_type_traits* traits = ggml_get_type_traits(static_cast<ggml_type>(type));
    if (traits->blck_size <= 0 || d % traits->blck_size != 0) return false;
    if (type != GGML_TYPE_F32) return data && traits->to_float;
    return data && nb_cell % 4 == 0 && nb_head % 4 == 0;
}

bool hadamard_ok(const Args& a) {
    return a.hadamard == 0 || (a.hadamard > 0 && (a.hadamard & (a.hadamard - 1)) == 0 && a.d_k % a.hadamard == 0);
}

bool queries_ok(const Args& a) {
    if (!a.q || a.n_query_rows < 1 || a.q_nb_head < 0 || a.q_nb_row < 0) return false;
    if (a.q_nb_head % 4 || a.q_nb_row % 4 || !in(a.rope, 0, 2) || !hadamard_ok(a)) return false;
    if (a.rope == 0) return true;
    return a.angles && in(a.n_rot, 0, a.d_k) && a.n_rot % 2 == 0 && a.n_angle_rows >= 1 && a.angles_nb_row >= 0 &&
           a.angles_nb_row % 4 == 0;
}

bool pair_ok(const Args& a, const AttnBlock& block, const AttnPair& pair) {
    return in(pair.token, 0, a.n_tokens - 1) && in(pair.query, 0, a.n_query_rows - 1) &&
           (a.rope == 0 || in(pair.angle, 0, a.n_angle_rows - 1)) && pair.first >= 0 && pair.last <= block.n_cells;
}

bool blocks_ok(const Args& a) {
    if ((a.n_blocks && !a.blocks) || (a.n_pairs && !a.pairs)) return false;
    int64_t n_pairs = 0;
    for (const AttnBlock* b = blocks_of(a); b < blocks_of(a) + a.n_blocks; ++b) {
        if (!in(b->n_cells, 0, max_block_cells) || b->n_cells > a.n_cells || !in(b->cell, 0, a.n_cells - b->n_cells)) {
            return false;
        }
        if (!in(b->n_pairs, 0, a.n_pairs) || !in(b->first_pair, 0, a.n_pairs - b->n_pairs)) return false;
        n_pairs += b->n_pairs;
        if (n_pairs > a.n_pairs) return false;
        for (int32_t i = 0; i < b->n_pairs; ++i) {
            if (!pair_ok(a, *b, pairs_of(a)[b->first_pair + i])) return false;
        }
    }
    return true;
}

bool all_ok(const Args& a) {
    return shape_ok(a) && queries_ok(a) && blocks_ok(a) && cache_ok(a.k, a.k_type, a.d_k, a.k_nb_cell, a.k_nb_head) &&
           cache_ok(a.v, a.v_type, a.d_v, a.v_nb_cell, a.v_nb_head);
}

AttnTensors tensors_of(const Args& a) {
    const auto size = [](int64_t n) { return static_cast<size_t>(n); };
    AttnTensors t = {};
    t.q = a.q, t.q_nb_head = size(a.q_nb_head), t.q_nb_row = size(a.q_nb_row);
    t.rope = static_cast<AttnRope>(a.rope), t.n_rot = a.n_rot;
    t.angles = a.angles, t.angles_nb_row = size(a.angles_nb_row);
    t.hadamard = a.hadamard;
    t.k = {a.k, size(a.k_nb_cell), size(a.k_nb_head), a.k_type};
    t.v = {a.v, size(a.v_nb_cell), size(a.v_nb_head), a.v_type};
    t.scale = a.scale, t.softcap = a.softcap, t.max_bias = a.max_bias, t.sinks = a.sinks;
    t.out = a.out;
    return t;
}

// Threads of one call. Nobody starts before all exist: a run must be entered by as many as it is told.
class Team {
  public:
    explicit Team(int size) : size_(size) {}

    template <class Work>
    void run(const Work& work) {
        std::vector<std::thread> threads;
        try {
            for (int ith = 1; ith < size_; ++ith) threads.emplace_back([this, &work, ith] { start(work, ith); });
            go_ = 1;
        } catch (...) {
            go_ = -1;
        }
        start(work, 0);
        for (std::thread& thread : threads) thread.join();
        if (go_ < 0) throw std::bad_alloc();
    }

    // As between the nodes of a graph.
    void wait() {
        const int round = round_;
        if (++arrived_ % size_ == 0) {
            ++round_;
        } else {
            while (round_ == round) std::this_thread::yield();
        }
    }

  private:
    template <class Work>
    void start(const Work& work, int ith) {
        while (go_ == 0) std::this_thread::yield();
        if (go_ > 0) work(ith);
    }

    const int size_;
    std::atomic<int> go_{0}, arrived_{0}, round_{0};
};

void run_threads(AttnPlan& plan, const AttnTensors& tensors, int n_threads, int n_runs) {
    Team team(n_threads);
    team.run([&](int ith) {
        for (int i = 0; i < n_runs; ++i) {
            attn_run(plan, tensors, ith, n_threads);
            team.wait();
        }
    });
}

}  // namespace

int hw_attention(const hw_attention_args* args, const char* isa_name, int n_threads) {
    try {
        if (!args || n_threads < 1 || n_threads > max_threads || !all_ok(*args)) return 1;
        const AttnShape shape = {args->n_tokens, args->n_head, args->n_head_kv, args->d_k, args->d_v};
        const AttnTensors tensors = tensors_of(*args);
        if (isa_name && std::strcmp(isa_name, "plain") == 0) {
            attn_plain(shape, blocks_of(*args), args->n_blocks, pairs_of(*args), tensors);
            return 0;
        }
        const AttnIsa* isa = attn_isa(isa_name);
        if (!isa) return 2;
        AttnPlan plan;
        plan.build(*isa, shape, blocks_of(*args), args->n_blocks, pairs_of(*args), n_threads);
        run_threads(plan, tensors, n_threads, std::max(args->n_runs, 1));
        return 0;
    } catch (...) {
        return 3;
    }
}

const char* hw_attention_isas(void) {
    static const std::string names = [] {
        std::string all;
        for (const AttnIsa* const* isa = attn_isas(); *isa; ++isa) all += std::string((*isa)->name) + ",";
        return all + "plain";
    }();
    return names.c_str();
}
