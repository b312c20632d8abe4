// Products with weights of 4 bits, for kernel/product-impl.h.
//
// A vector has 4 inputs of each of 8 outputs. Weights are taken as 0 to 15, so that an unsigned times a signed byte
// gives a product.
#pragma once

#include <cstring>

#include "kernel/product.h"

namespace hw {
namespace {

inline __m256i lower_bits(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
inline __m256i upper_bits(__m256i v) { return lower_bits(_mm256_srli_epi16(v, 4)); }

inline __m256i four_inputs(const int8_t* numbers) {
    int32_t four;
    std::memcpy(&four, numbers, sizeof four);
    return _mm256_set1_epi32(four);
}

// 16 inputs of 8 outputs, four at a time.
struct Sixteen {
    __m256i fours[4];

    // sums, and those with inputs 0 to 7 at x, 8 to 15 at y.
    __m256i add_to(__m256i sums, const int8_t* x, const int8_t* y) const {
        sums = add_dots(sums, fours[0], four_inputs(x));
        sums = add_dots(sums, fours[1], four_inputs(x + 4));
        sums = add_dots(sums, fours[2], four_inputs(y));
        return add_dots(sums, fours[3], four_inputs(y + 4));
    }
};

// Eight bytes of each output -> the first four of each, the last four: of outputs 0 1 4 5 2 3 6 7.
inline __m256i first_fours(__m256i outputs_0_to_3, __m256i outputs_4_to_7) {
    return _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castsi256_ps(outputs_0_to_3), _mm256_castsi256_ps(outputs_4_to_7), 0x88));
}
inline __m256i last_fours(__m256i outputs_0_to_3, __m256i outputs_4_to_7) {
    return _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castsi256_ps(outputs_0_to_3), _mm256_castsi256_ps(outputs_4_to_7), 0xDD));
}

// Scales are brought to that order, and results back.
inline __m128i in_order(__m128i words) { return _mm_shuffle_epi32(words, 0xD8); }
inline __m256 scales_of(const uint16_t* scales) {
    return _mm256_cvtph_ps(in_order(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales))));
}
inline void store(float* out, __m256 sums) {
    _mm256_storeu_ps(out, _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(sums), 0xD8)));
}

// Of R rows, 8 outputs: out[row * stride + output].
template <int R>
struct Q4Tile {
    using Block = Q4Block;
    static constexpr int64_t n_outputs = 8;

    // Inputs 8 half to 8 half + 7, and those 16 further. Weights are stored signed, as four bits of two's complement:
    // 8 more makes them 0 to 15.
    static Sixteen unpack(const Block& block, int64_t half) {
        const __m256i a = load(block.quants + 64 * half);
        const __m256i b = load(block.quants + 64 * half + 32);
        const __m256i eights = _mm256_set1_epi8(static_cast<char>(0x88));
        const __m256i first = _mm256_xor_si256(first_fours(a, b), eights);
        const __m256i last = _mm256_xor_si256(last_fours(a, b), eights);
        return {{lower_bits(first), lower_bits(last), upper_bits(first), upper_bits(last)}};
    }

    static void run(const Block* blocks, int64_t n_blocks, const QuantizedRow* rows, float* out, int64_t stride) {
        __m256 sums[R] = {};
        for (int64_t b = 0; b < n_blocks; b++) {
            __m256i products[R];
            ask_ahead<R, sizeof(Block)>(blocks + b);
            const Sixteen left = unpack(blocks[b], 0);
            for (int r = 0; r < R; r++) {
                const int8_t* x = rows[r].numbers + b * Block::n_inputs;
                products[r] = left.add_to(_mm256_setzero_si256(), x, x + 16);
            }
            const Sixteen right = unpack(blocks[b], 1);
            const __m256 scales = scales_of(blocks[b].scales);
            for (int r = 0; r < R; r++) {
                const int8_t* x = rows[r].numbers + b * Block::n_inputs;
                const __m256i dots = whole(right.add_to(products[r], x + 8, x + 24));
                const __m256i less = _mm256_sub_epi32(dots, _mm256_set1_epi32(rows[r].sums[b]));
                sums[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(less),
                                          _mm256_mul_ps(scales, _mm256_set1_ps(rows[r].scales[b])), sums[r]);
            }
        }
        for (int r = 0; r < R; r++) {
            store(out + r * stride, sums[r]);
        }
    }
};

template <int R>
struct Q4KTile {
    using Block = Q4KBlock;
    static constexpr int64_t n_outputs = 8;

    // Of the parts of a block: [part][output], 16 bits each.
    struct Parts {
        alignas(16) int16_t scales[Block::n_parts][8];
        alignas(16) int16_t mins[Block::n_parts][8];

        explicit Parts(const Block& block) {
            for (int64_t part = 0; part < Block::n_parts; part++) {
                uint32_t four[3];  // as part_scales(), four bytes at once
                std::memcpy(four, block.parts + 12 * part, sizeof four);
                const uint32_t high[2] = {four[0] >> 6 & 0x03030303, four[1] >> 6 & 0x03030303};
                store(scales[part], four[0] & 0x3f3f3f3f, (four[2] & 0x0f0f0f0f) | high[0] << 4);
                store(mins[part], four[1] & 0x3f3f3f3f, (four[2] >> 4 & 0x0f0f0f0f) | high[1] << 4);
            }
        }
        static void store(int16_t* eight, uint32_t first, uint32_t last) {
            const auto bytes = static_cast<int64_t>(static_cast<uint64_t>(last) << 32 | first);
            _mm_store_si128(reinterpret_cast<__m128i*>(eight), _mm_cvtepu8_epi16(_mm_cvtsi64_si128(bytes)));
        }
        static __m128i of(const int16_t* eight) { return _mm_load_si128(reinterpret_cast<const __m128i*>(eight)); }
        __m256i scales_of(int64_t part) const { return wide(in_order(of(scales[part]))); }
        // Mins of two parts side by side, of 8 outputs.
        __m256i pairs(int64_t part) const {
            const __m128i a = in_order(of(mins[part]));
            const __m128i b = in_order(of(mins[part + 1]));
            return _mm256_set_m128i(_mm_unpackhi_epi16(a, b), _mm_unpacklo_epi16(a, b));
        }
    };

    // Half of the inputs of a part.
    static Sixteen unpack(const Block& block, int64_t part, int64_t half) {
        const uint8_t* quants = block.quants + 256 * (part / 2) + 128 * half;
        Sixteen result;
        for (int64_t i = 0; i < 2; i++) {
            const __m256i a = load(quants + 64 * i);
            const __m256i b = load(quants + 64 * i + 32);
            const __m256i first = first_fours(a, b);
            const __m256i last = last_fours(a, b);
            result.fours[2 * i] = part % 2 == 0 ? lower_bits(first) : upper_bits(first);
            result.fours[2 * i + 1] = part % 2 == 0 ? lower_bits(last) : upper_bits(last);
        }
        return result;
    }

    static void run(const Block* blocks, int64_t n_blocks, const QuantizedRow* rows, float* out, int64_t stride) {
        __m256 sums[R] = {};
        __m256 taken[R] = {};  // by the mins
        for (int64_t b = 0; b < n_blocks; b++) {
            const Block& block = blocks[b];
            const Parts parts(block);
            __m256i dots[R] = {};
            for (int64_t part = 0; part < Block::n_parts; part++) {
                __m256i products[R];
                constexpr size_t n_part = sizeof(Block) / Block::n_parts;
                ask_ahead<R, n_part>(block.quants + static_cast<size_t>(part) * n_part);
                const Sixteen left = unpack(block, part, 0);
                for (int r = 0; r < R; r++) {
                    const int8_t* x = rows[r].numbers + b * Block::n_inputs + 32 * part;
                    products[r] = left.add_to(_mm256_setzero_si256(), x, x + 8);
                }
                const Sixteen right = unpack(block, part, 1);
                const __m256i scales = parts.scales_of(part);
                for (int r = 0; r < R; r++) {
                    const int8_t* x = rows[r].numbers + b * Block::n_inputs + 32 * part;
                    const __m256i all = right.add_to(products[r], x + 16, x + 24);
                    dots[r] = _mm256_add_epi32(dots[r], scaled(all, scales));
                }
            }
            const __m256 scales = scales_of(block.scales);
            const __m256 mins = scales_of(block.mins);
            for (int r = 0; r < R; r++) {
                const __m256 scale = _mm256_set1_ps(rows[r].scales[b]);
                __m256i min = _mm256_setzero_si256();
                for (int64_t pair = 0; pair < Block::n_parts / 2; pair++) {
                    const __m256i two = _mm256_set1_epi32(rows[r].sums[b * Block::n_parts / 2 + pair]);
                    min = add_pairs(min, parts.pairs(2 * pair), two);
                }
                sums[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[r]), _mm256_mul_ps(scales, scale), sums[r]);
                taken[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(min), _mm256_mul_ps(mins, scale), taken[r]);
            }
        }
        for (int r = 0; r < R; r++) {
            store(out + r * stride, _mm256_sub_ps(sums[r], taken[r]));
        }
    }
};

}  // namespace
}  // namespace hw
