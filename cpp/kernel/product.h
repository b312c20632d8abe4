// Products of a pass's rows with weights of 4 and 6 bits. ggml's CPU backend unpacks weights for each row anew (those
// of 4 bits also for four at once); here up to eight rows, whatever their number, share what is read and
// unpacked. So a pass of two or three workers costs little more than one of a single worker.
//
// Weights of 4 bits lie as ggml repacks them, the numbers of eight outputs side by side; those of 6 bits as in a file.
// Activations are quantized to 8 bits, as ggml does it, once for all products that read them. Sums of integers are
// exact, and floats are added in the order of ggml's kernels of one row: the same inputs give the same bits, in any
// pass.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hw {

enum class WeightKind { q4_0, q4_k, q6_k };

// ggml's block_q4_0x8: 32 inputs of 8 outputs. A weight is scale * (its four bits, signed). Byte 64 h + 8 o + i of
// quants: the weights of output o, of input 8 h + i in the lower bits, of input 16 + 8 h + i in the upper ones.
struct Q4Block {
    static constexpr int64_t n_inputs = 32;
    uint16_t scales[8];  // f16, as all scales of weights
    uint8_t quants[128];
};

// ggml's block_q4_Kx8: 256 inputs of 8 outputs, in 8 parts of 32. A weight is
// scale * (6-bit scale of its part) * (its four bits) - min * (6-bit min of its part). Of parts 2 j and 2 j + 1, byte
// 256 j + 64 h + 8 o + i of quants has input 8 h + i, in the lower and the upper bits. Part p has bytes 12 p to
// 12 p + 11 of parts: see part_scales().
struct Q4KBlock {
    static constexpr int64_t n_inputs = 256;
    static constexpr int64_t n_parts = 8;
    uint16_t scales[8];
    uint16_t mins[8];
    uint8_t parts[96];
    uint8_t quants[1024];
};

// ggml's block_q6_K: 256 inputs of one output, in two halves. A weight is scale * (8-bit scale of its 16 inputs) *
// (its six bits - 32). Input 32 n + i of a half: the lower bits in byte 32 (n % 2) + i of its 64 bytes of low, the
// upper half of that byte from n = 2 on; two more in byte i of its 32 bytes of high, from bit 2 n on.
struct Q6KBlock {
    static constexpr int64_t n_inputs = 256;
    static constexpr int64_t n_parts = 16;
    uint8_t low[128];
    uint8_t high[64];
    int8_t parts[16];
    uint16_t scale;
};

// blocks: of 8 outputs all inputs, then of the next 8; of q6_k of one output, then of the next.
struct Weights {
    WeightKind kind;
    const void* blocks;
    int64_t n_in;   // a multiple of what a block has
    int64_t n_out;  // a multiple of 8; of q6_k any
};

inline int64_t n_groups(const Weights& weights) { return (weights.n_out + 7) / 8; }

// A quantized row: the numbers, a float for each block, and for each block what is to be taken off: of q4_0 8 * sum
// (int32), of the others the sums of its parts (int16).
struct QuantizedRow {
    const int8_t* numbers;
    const float* scales;
    const int32_t* sums;
};

size_t quantized_bytes(WeightKind kind, int64_t n_in);
QuantizedRow quantized_row(WeightKind kind, int64_t n_in, const std::byte* row);

// x [n_in] -> the parts of a QuantizedRow.
using Quantize = void (*)(const float* x, int64_t n_in, int8_t* numbers, float* scales, int32_t* sums);

struct ProductKernel {
    const char* name;
    const Quantize* quantize_for;  // by WeightKind
    // out [n_rows, n_out], of the outputs from 8 * first on, 8 * n_groups of them, or as many as there are. rows:
    // n_rows quantized ones.
    void (*multiply)(const Weights& weights, const std::byte* rows, int64_t n_rows, int64_t first, int64_t n_groups,
                     float* out);
};

// x [n_in] -> row: quantized_bytes()
void quantize_row(const ProductKernel& kernel, WeightKind kind, const float* x, int64_t n_in, std::byte* row);

// The same in plain sight: one number after the other, sums in double. What the tests compare with.
extern const ProductKernel product_plain;

// Those that this CPU can run, best first; null ends them.
const ProductKernel* const* product_kernels();
// The best; null: there is none, and ggml's own kernels are to be used.
inline const ProductKernel* product_kernel() { return *product_kernels(); }

// From so many rows on ggml's own kernels for repacked weights may be faster on this CPU; 0: never.
int64_t repacked_limit();

// Scales and mins of a part of 8 outputs: 6 bits each, in 12 bytes.
inline void part_scales(const uint8_t* part, uint8_t scales[8], uint8_t mins[8]) {
    for (int i = 0; i < 4; i++) {
        scales[i] = part[i] & 63;
        mins[i] = part[4 + i] & 63;
        scales[4 + i] = static_cast<uint8_t>((part[8 + i] & 15) | (part[i] >> 6 << 4));
        mins[4 + i] = static_cast<uint8_t>((part[8 + i] >> 4) | (part[4 + i] >> 6 << 4));
    }
}

}  // namespace hw
