// Time of the attention kernel, summed over the layers of one forward pass, in the shape of Qwen3-0.6B by default.
//
// Method: every layer has keys and values of its own, so caches are cold as in a real pass; threads stay in a pool and
// meet at a spinning barrier after each layer, as in ggml; one pass warms up, then the median and the best of several
// passes are printed. The machine's own limits (reading memory, multiply-adds) are measured right before. The plain
// version is timed on one layer of 256 keys, and compared with the kernel on the same.
//
// Build and run: see attention_kernel.sh
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "../cpp/kernel/kernel.h"
#include "ggml.h"

namespace {

using namespace hw;

constexpr int n_head = 16, n_head_kv = 8, d = 128, n_repeats = 7;
constexpr int own_cells = 32;    // of a worker's own block
ggml_type type = GGML_TYPE_F16;  // of the cache; filled with halves in any case: bits of finite numbers in all types

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double best(const std::function<void()>& work, int repeats) {
    double least = 1e9;
    for (int i = 0; i < repeats; ++i) {
        const double start = now();
        work();
        least = std::min(least, now() - start);
    }
    return least;
}

void in_threads(int n_threads, const std::function<void(int)>& work) {
    std::vector<std::thread> threads;
    for (int i = 1; i < n_threads; ++i) threads.emplace_back(work, i);
    work(0);
    for (std::thread& thread : threads) thread.join();
}

class SpinBarrier {
  public:
    explicit SpinBarrier(int n) : n_(n) {}
    void wait() {
        const int round = round_.load();
        if (arrived_.fetch_add(1) + 1 == n_) {
            arrived_ = 0;
            round_ = round + 1;
        }
        while (round_.load(std::memory_order_acquire) == round) {
        }
    }

  private:
    const int n_;
    std::atomic<int> arrived_{0}, round_{0};
};

typedef float Wide __attribute__((vector_size(64)));
typedef uint64_t WideBits __attribute__((vector_size(64)));
volatile float sink;

// GFLOP/s of independent multiply-adds.
double peak_gflops(int n_threads) {
    constexpr int steps = 20'000'000;
    const auto work = [](int) {
        Wide a[12];
        for (int i = 0; i < 12; ++i) a[i] = Wide{} + static_cast<float>(i);  // unequal: none may be optimised away
        const Wide x = Wide{} + 0.5f;
        for (int i = 0; i < steps; ++i) {
#pragma GCC unroll 12
            for (Wide& sum : a) sum = sum * x + x;
        }
        Wide all = {};
        for (const Wide& sum : a) all += sum;
        sink = all[0];
    };
    return n_threads * 12.0 * 16 * 2 * steps / best([&] { in_threads(n_threads, work); }, 3) / 1e9;
}

double read_gbytes(const std::vector<ggml_fp16_t>& memory, int n_threads) {
    const size_t bytes = memory.size() * sizeof(ggml_fp16_t);
    const auto work = [&](int ith) {
        const char* p = reinterpret_cast<const char*>(memory.data());
        const size_t end = bytes / static_cast<size_t>(n_threads) * static_cast<size_t>(ith + 1) / 64 * 64;
        WideBits all[2] = {};
        for (size_t i = bytes / static_cast<size_t>(n_threads) * static_cast<size_t>(ith) / 64 * 64; i + 128 <= end;
             i += 128) {
            WideBits x[2];
            std::memcpy(x, p + i, sizeof x);
            all[0] ^= x[0], all[1] ^= x[1];
        }
        sink = static_cast<float>((all[0] ^ all[1])[0]);
    };
    return static_cast<double>(bytes) / best([&] { in_threads(n_threads, work); }, 3) / 1e9;
}

// One pass: queries, who sees what, and the caches of all layers.
struct Pass {
    int n_layers, n_cells, n_tokens;
    std::vector<AttnBlock> blocks;
    std::vector<AttnPair> pairs;
    std::vector<float> q, angles, out;
    std::vector<ggml_fp16_t> cache;  // (d, cells, KV heads, [k, v], layers), of any type

    AttnShape shape() const { return {n_tokens, n_head, n_head_kv, d, d}; }
    AttnTensors tensors(int layer) {
        AttnTensors t = {};
        const size_t row = ggml_row_size(type, d), head = static_cast<size_t>(n_cells) * row;
        char* k = reinterpret_cast<char*>(cache.data()) + static_cast<size_t>(2 * layer) * n_head_kv * head;
        t.q = q.data(), t.q_nb_head = d * 4, t.q_nb_row = n_head * d * 4;
        t.rope = AttnRope::halves, t.n_rot = d, t.angles = angles.data(), t.angles_nb_row = d * 4;
        t.k = {k, row, head, type};
        t.v = {k + n_head_kv * head, row, head, type};
        t.scale = 1 / std::sqrt(static_cast<float>(d));
        t.out = out.data();
        return t;
    }
    double cache_bytes() const { return static_cast<double>(cache.size()) * 2; }
    double flops() const {
        double seen = 0;
        for (const AttnPair& pair : pairs) seen += pair.last - pair.first;
        return seen * n_layers * n_head * d * 4;
    }
    void fill() {
        unsigned state = 1;
        const auto random = [&state] {
            state = state * 1664525u + 1013904223u;
            return static_cast<float>(state >> 8) / (1 << 23) - 1;
        };
        cache.resize(static_cast<size_t>(n_layers) * 2 * n_head_kv * static_cast<size_t>(n_cells) *
                     ggml_row_size(type, d) / 2);
        std::vector<ggml_fp16_t> some(4099);  // a prime: rows differ
        for (ggml_fp16_t& x : some) x = ggml_fp32_to_fp16(random());
        for (size_t i = 0; i < cache.size(); ++i) cache[i] = some[i % some.size()];
        q.resize(static_cast<size_t>(n_tokens) * n_head * d);
        angles.resize(pairs.size() * d);
        out.resize(q.size());
        for (float& x : q) x = random();
        for (float& x : angles) x = random();
    }
};

// W workers over one prefix; everybody sees everybody's block of own_cells.
Pass decode_pass(int n_layers, int prefix, int n_workers) {
    Pass pass = {n_layers, prefix + n_workers * own_cells, n_workers, {}, {}, {}, {}, {}, {}};
    for (int b = 0; b <= n_workers; ++b) {
        const int cell = b == 0 ? 0 : prefix + (b - 1) * own_cells, length = b == 0 ? prefix : own_cells;
        pass.blocks.push_back({cell, length, static_cast<int>(pass.pairs.size()), n_workers});
        for (int w = 0; w < n_workers; ++w) {
            pass.pairs.push_back({w, w, static_cast<int>(pass.pairs.size()), 0, length, length});
        }
    }
    pass.fill();
    return pass;
}

// The last n_tokens of n_cells cells, causal.
Pass prefill_pass(int n_layers, int n_cells, int n_tokens) {
    Pass pass = {n_layers, n_cells, n_tokens, {{0, n_cells, 0, n_tokens}}, {}, {}, {}, {}, {}};
    for (int t = 0; t < n_tokens; ++t) pass.pairs.push_back({t, t, t, 0, n_cells - n_tokens + t + 1, 0});
    pass.fill();
    return pass;
}

void report(const char* what, Pass& pass, const AttnIsa& isa, int n_threads) {
    AttnPlan plan;
    SpinBarrier barrier(n_threads);
    const double build = best(
        [&] {
            plan.build(isa, pass.shape(), pass.blocks.data(), static_cast<int>(pass.blocks.size()), pass.pairs.data(),
                       n_threads);
        },
        3);
    std::vector<double> times;
    in_threads(n_threads, [&](int ith) {
        for (int i = 0; i <= n_repeats; ++i) {
            barrier.wait();
            const double start = now();
            for (int layer = 0; layer < pass.n_layers; ++layer) {
                attn_run(plan, pass.tensors(layer), ith, n_threads);
                barrier.wait();
            }
            if (ith == 0 && i > 0) times.push_back(now() - start);
        }
    });
    std::sort(times.begin(), times.end());
    const double median = times[times.size() / 2];
    std::printf("%-30s %-8s median %8.2f ms  best %8.2f ms  %7.1f GFLOP/s  %5.1f GB/s  (plan: %.0f us)\n", what,
                isa.name, median * 1e3, times[0] * 1e3, pass.flops() / median / 1e9, pass.cache_bytes() / median / 1e9,
                build * 1e6);
}

void compare_with_plain(const AttnIsa& isa) {
    Pass pass = decode_pass(1, 256, 4);
    const AttnTensors tensors = pass.tensors(0);
    AttnPlan plan;
    const int n_blocks = static_cast<int>(pass.blocks.size());
    const double fast = best(
        [&] {
            plan.build(isa, pass.shape(), pass.blocks.data(), n_blocks, pass.pairs.data(), 1);
            attn_run(plan, tensors, 0, 1);
        },
        20);
    const double plain =
        best([&] { attn_plain(pass.shape(), pass.blocks.data(), n_blocks, pass.pairs.data(), tensors); }, 3);
    std::printf("one layer, 256 keys, 4 workers, 1 thread: plain %.2f ms, %s %.3f ms\n", plain * 1e3, isa.name,
                fast * 1e3);
}

void print_machine(int n_threads) {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);) {
        if (line.rfind("model name", 0) == 0 || line.rfind("model\t", 0) == 0) std::printf("%s\n", line.c_str());
        if (line.empty()) break;
    }
    Pass pass = decode_pass(8, 4096, 1);
    std::printf("%d threads of %u: reading %.1f GB/s, multiply-adds %.0f GFLOP/s\n", n_threads,
                std::thread::hardware_concurrency(), read_gbytes(pass.cache, n_threads), peak_gflops(n_threads));
}

}  // namespace

// attention_kernel [isa] [threads] [what: all | decode | prefill] [cells] [type of the cache: f16 | f32 | q8_0 | ...]
int main(int argc, char** argv) {
    const AttnIsa* isa = attn_isa(argc > 1 ? argv[1] : "auto");
    const int n_threads = argc > 2 ? std::atoi(argv[2]) : 2;
    const std::string what = argc > 3 ? argv[3] : "all";
    if (!isa || n_threads < 1) return std::fprintf(stderr, "no such kernel here\n"), 1;
    for (int i = 0; argc > 5 && i < GGML_TYPE_COUNT; ++i) {
        const char* name = ggml_type_name(static_cast<ggml_type>(i));
        if (name && std::strcmp(name, argv[5]) == 0) type = static_cast<ggml_type>(i);
    }
    print_machine(n_threads);
    for (const int n : {256, 4096, 8192}) {
        if (argc > 4 && n != std::atoi(argv[4])) continue;
        for (const int workers : {1, 2, 4, 8}) {
            if (what == "prefill") continue;
            const int n_layers = 28 * std::max(1, 4096 / n);  // as many cells, so that none are left in the CPU's cache
            Pass pass = decode_pass(n_layers, n, workers);
            const std::string layers = n_layers > 28 ? ", " + std::to_string(n_layers) + " layers" : "";
            report(("decode " + std::to_string(n) + ", W=" + std::to_string(workers) + layers).c_str(), pass, *isa,
                   n_threads);
        }
        if (what == "decode") continue;
        Pass pass = prefill_pass(4, n, 512);
        report(("prefill 512 of " + std::to_string(n) + ", 4 layers").c_str(), pass, *isa, n_threads);
    }
    if (what == "all") compare_with_plain(*isa);
    return 0;
}
