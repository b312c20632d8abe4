// Products with weights of 4 and 6 bits by our CPU kernel (kernel/product.h): a custom node that quantizes the rows,
// once for all products that read them, and one that multiplies. Other products stay ggml's.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "ggml.h"
#include "kernel/product.h"

namespace hw {

class WeightProducts {
  public:
    // has_devices: there are others than the CPU, which may take products of many rows. n_threads: at most.
    WeightProducts(bool has_devices, int32_t n_threads) : has_devices_(has_devices), n_threads_(n_threads) {}

    // node: of llama.cpp's graph. x: the copy of what it multiplies, F32 [n_in, T]. -> F32 [n_out, T] in its place;
    // null: the product is not one of ours. Weights must outlive the graph.
    ggml_tensor* build(ggml_context* ctx, const ggml_tensor* node, ggml_tensor* x);

  private:
    // A thread's: groups of outputs that somebody has taken. Alone in its cache line.
    struct alignas(64) Share {
        std::atomic<int64_t> n_taken{0};
    };
    struct Node {
        Node(const Weights& all, int32_t n_threads) : weights(all), shares(static_cast<size_t>(n_threads)) {}

        Weights weights;
        std::vector<Share> shares;
        std::atomic<int32_t> n_left{0};  // threads that have left this run
    };
    // Products of so many rows are not ours.
    int64_t limit_of(const Weights& weights) const;
    ggml_tensor* quantized(ggml_context* ctx, const Node& node, ggml_tensor* x);
    static void quantize(ggml_tensor* dst, int ith, int nth, void* node);
    static void multiply(ggml_tensor* dst, int ith, int nth, void* node);

    bool has_devices_;
    int32_t n_threads_;
    std::vector<std::unique_ptr<Node>> nodes_;
    std::map<std::pair<const ggml_tensor*, WeightKind>, ggml_tensor*> quantized_;
};

}  // namespace hw
