// Products with repacked weights, one number after the other.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "ggml.h"
#include "kernel/product.h"

namespace hw {

namespace {

struct Q4Weights {
    using Block = Q4Block;
    static double weight(const Block& block, int64_t output, int64_t input) {
        const uint8_t two = block.quants[64 * (input % 16 / 8) + 8 * output + input % 8];
        const int bits = input < 16 ? two & 15 : two >> 4;
        return static_cast<double>(ggml_fp16_to_fp32(block.scales[output])) * (bits < 8 ? bits : bits - 16);
    }
};

struct Q4KWeights {
    using Block = Q4KBlock;
    static double weight(const Block& block, int64_t output, int64_t input) {
        const int64_t part = input / 32;
        const uint8_t two = block.quants[256 * (part / 2) + 64 * (input % 32 / 8) + 8 * output + input % 8];
        uint8_t scales[8];
        uint8_t mins[8];
        part_scales(block.parts + 12 * part, scales, mins);
        return static_cast<double>(ggml_fp16_to_fp32(block.scales[output])) * scales[output] *
                   (part % 2 == 0 ? two & 15 : two >> 4) -
               static_cast<double>(ggml_fp16_to_fp32(block.mins[output])) * mins[output];
    }
};

template <class W>
void multiply_rows(const Weights& weights, const std::byte* rows, int64_t n_rows, int64_t first, int64_t n_groups,
                   float* out) {
    constexpr int64_t n_inputs = W::Block::n_inputs;
    const int64_t n_blocks = weights.n_in / n_inputs;
    const size_t row_bytes = quantized_bytes(weights.kind, weights.n_in);
    for (int64_t row = 0; row < n_rows; row++) {
        const QuantizedRow x = quantized_row(weights.kind, weights.n_in, rows + static_cast<size_t>(row) * row_bytes);
        for (int64_t output = 8 * first; output < 8 * (first + n_groups); output++) {
            const auto* blocks = static_cast<const typename W::Block*>(weights.blocks) + output / 8 * n_blocks;
            double sum = 0.0;
            for (int64_t i = 0; i < weights.n_in; i++) {
                const int64_t block = i / n_inputs;
                sum += W::weight(blocks[block], output % 8, i % n_inputs) * static_cast<double>(x.scales[block]) *
                       x.numbers[i];
            }
            out[row * weights.n_out + output] = static_cast<float>(sum);
        }
    }
}

void multiply(const Weights& weights, const std::byte* rows, int64_t n_rows, int64_t first, int64_t n_groups,
              float* out) {
    (weights.kind == WeightKind::q4_0 ? multiply_rows<Q4Weights> : multiply_rows<Q4KWeights>)(weights, rows, n_rows,
                                                                                              first, n_groups, out);
}

// What is no number shows in the scale.
int8_t rounded(float v) { return std::isnan(v) ? 0 : static_cast<int8_t>(std::min(127.0f, std::nearbyint(v))); }

// 32 numbers a scale, rounded to f16 as ggml's block_q8_0 has it.
void quantize_q4_0(const float* x, int64_t n_in, int8_t* numbers, float* scales, int32_t* sums) {
    for (int64_t block = 0; block < n_in / Q4Block::n_inputs; block++, x += Q4Block::n_inputs) {
        float largest = 0.0f;
        for (int64_t i = 0; i < Q4Block::n_inputs; i++) {
            largest = std::fabs(x[i]) <= largest ? largest : std::fabs(x[i]);
        }
        const float factor = largest != 0.0f ? 127.0f / largest : 0.0f;
        scales[block] = ggml_fp16_to_fp32(ggml_fp32_to_fp16(largest / 127.0f));
        sums[block] = 0;
        for (int64_t i = 0; i < Q4Block::n_inputs; i++) {
            *numbers = rounded(x[i] * factor);
            sums[block] += 8 * *numbers++;
        }
    }
}

// 256 numbers a scale, as ggml's block_q8_K: the largest one becomes -127, or 127.
void quantize_q4_k(const float* x, int64_t n_in, int8_t* numbers, float* scales, int32_t* sums) {
    for (int64_t block = 0; block < n_in / Q4KBlock::n_inputs; block++, x += Q4KBlock::n_inputs) {
        float largest = 0.0f;
        for (int64_t i = 0; i < Q4KBlock::n_inputs; i++) {
            largest = std::fabs(x[i]) <= std::fabs(largest) ? largest : x[i];
        }
        const float factor = largest != 0.0f ? -127.0f / largest : 0.0f;
        scales[block] = largest != 0.0f ? 1.0f / factor : 0.0f;
        int16_t parts[Q4KBlock::n_parts] = {};
        for (int64_t i = 0; i < Q4KBlock::n_inputs; i++) {
            *numbers = rounded(x[i] * factor);
            parts[i / 32] = static_cast<int16_t>(parts[i / 32] + *numbers++);
        }
        std::memcpy(sums + block * Q4KBlock::n_parts / 2, parts, sizeof parts);
    }
}

void quantize(WeightKind kind, const float* x, int64_t n_in, std::byte* row) {
    const QuantizedRow parts = quantized_row(kind, n_in, row);
    (kind == WeightKind::q4_0 ? quantize_q4_0 : quantize_q4_k)(x, n_in, const_cast<int8_t*>(parts.numbers),
                                                               const_cast<float*>(parts.scales),
                                                               const_cast<int32_t*>(parts.sums));
}

}  // namespace

const ProductKernel product_plain = {quantize, multiply, 0};

}  // namespace hw
