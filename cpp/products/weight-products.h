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
    // has_devices: there are others than the CPU, which may take products of many rows.
    explicit WeightProducts(bool has_devices) : has_devices_(has_devices) {}

    // node: of llama.cpp's graph. x: the copy of what it multiplies, F32 [n_in, T]. -> F32 [n_out, T] in its place;
    // null: the product is not one of ours. Weights must outlive the graph.
    ggml_tensor* build(ggml_context* ctx, const ggml_tensor* node, ggml_tensor* x);

  private:
    struct Node {
        explicit Node(const Weights& all) : weights(all) {}

        Weights weights;
        std::atomic<int32_t> next{0};  // the part that is to be taken next; 0 again when all threads have left
    };
    // Products of so many rows are not ours.
    int64_t limit_of(const Weights& weights) const;
    ggml_tensor* quantized(ggml_context* ctx, const Node& node, ggml_tensor* x);
    static void quantize(ggml_tensor* dst, int ith, int nth, void* node);
    static void multiply(ggml_tensor* dst, int ith, int nth, void* node);

    bool has_devices_;
    std::vector<std::unique_ptr<Node>> nodes_;
    std::map<std::pair<const ggml_tensor*, WeightKind>, ggml_tensor*> quantized_;
};

}  // namespace hw
