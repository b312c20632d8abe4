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

struct Q6KWeights {
    using Block = Q6KBlock;
    static double weight(const Block& block, int64_t, int64_t input) {
        const int64_t half = input / 128;
        const int64_t n = input % 128 / 32;
        const int64_t i = input % 32;
        const uint8_t two = block.low[64 * half + 32 * (n % 2) + i];
        const int bits = (n < 2 ? two & 15 : two >> 4) | (block.high[32 * half + i] >> (2 * n) & 3) << 4;
        return static_cast<double>(ggml_fp16_to_fp32(block.scale)) * block.parts[input / 16] * (bits - 32);
    }
};

// outputs: whose numbers a block has.
template <class W, int64_t outputs>
void multiply_rows(const Weights& weights, const std::byte* rows, int64_t n_rows, int64_t first, int64_t n_groups,
                   float* out) {
    constexpr int64_t n_inputs = W::Block::n_inputs;
    const int64_t n_blocks = weights.n_in / n_inputs;
    const size_t row_bytes = quantized_bytes(weights.kind, weights.n_in);
    for (int64_t row = 0; row < n_rows; row++) {
        const QuantizedRow x = quantized_row(weights.kind, weights.n_in, rows + static_cast<size_t>(row) * row_bytes);
        for (int64_t output = 8 * first; output < std::min(8 * (first + n_groups), weights.n_out); output++) {
            const auto* blocks = static_cast<const typename W::Block*>(weights.blocks) + output / outputs * n_blocks;
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
    switch (weights.kind) {
        case WeightKind::q4_0:
            return multiply_rows<Q4Weights, 8>(weights, rows, n_rows, first, n_groups, out);
        case WeightKind::q4_k:
            return multiply_rows<Q4KWeights, 8>(weights, rows, n_rows, first, n_groups, out);
        case WeightKind::q6_k:
            return multiply_rows<Q6KWeights, 1>(weights, rows, n_rows, first, n_groups, out);
    }
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
template <int64_t n_parts>
void quantize_k(const float* x, int64_t n_in, int8_t* numbers, float* scales, int32_t* sums) {
    constexpr int64_t n_inputs = 256;
    for (int64_t block = 0; block < n_in / n_inputs; block++, x += n_inputs) {
        float largest = 0.0f;
        for (int64_t i = 0; i < n_inputs; i++) {
            largest = std::fabs(x[i]) <= std::fabs(largest) ? largest : x[i];
        }
        const float factor = largest != 0.0f ? -127.0f / largest : 0.0f;
        scales[block] = largest != 0.0f ? 1.0f / factor : 0.0f;
        int16_t parts[n_parts] = {};
        for (int64_t i = 0; i < n_inputs; i++) {
            *numbers = rounded(x[i] * factor);
            int16_t& part = parts[i / (n_inputs / n_parts)];
            part = static_cast<int16_t>(part + *numbers++);
        }
        std::memcpy(sums + block * n_parts / 2, parts, sizeof parts);
    }
}

constexpr Quantize quantize_for[] = {quantize_q4_0, quantize_k<Q4KBlock::n_parts>, quantize_k<Q6KBlock::n_parts>};

}  // namespace

const ProductKernel product_plain = {"plain", quantize_for, multiply};

}  // namespace hw
