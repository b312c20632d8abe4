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

// sums, of R rows and G groups of outputs: and weights, of each group, times the four inputs at x[r] + i. What is
// loaded of a row serves all groups; rows take turns, so that no sum waits for itself.
template <int R, int G>
void add_four(__m256i (&sums)[G][R], const __m256i (&weights)[G], const int8_t* const (&x)[R], int64_t i) {
    for (int r = 0; r < R; r++) {
        const __m256i inputs = four_inputs(x[r] + i);
        for (int g = 0; g < G; g++) {
            sums[g][r] = add_dots(sums[g][r], weights[g], inputs);
        }
    }
}

// Of 8 bytes of each of 8 outputs, the first four or the last: of outputs 0 1 4 5 2 3 6 7.
template <bool last>
__m256i fours_of(const uint8_t* outputs) {
    const __m256 a = _mm256_castsi256_ps(load(outputs));
    const __m256 b = _mm256_castsi256_ps(load(outputs + 32));
    return _mm256_castps_si256(_mm256_shuffle_ps(a, b, last ? 0xDD : 0x88));
}

// Scales are brought to that order, and results back.
inline __m128i in_order(__m128i words) { return _mm_shuffle_epi32(words, 0xD8); }
inline __m256 scales_of(const uint16_t* scales) {
    return _mm256_cvtph_ps(in_order(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales))));
}
inline void store(float* out, __m256 sums) {
    _mm256_storeu_ps(out, _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(sums), 0xD8)));
}

// Of R rows, G groups of 8 outputs: out[row * stride + output]. The blocks of a group lie behind those of the one
// before.
template <int R, int G>
struct Q4Tile {
    using Block = Q4Block;
    static constexpr int64_t n_outputs = 8;
    static constexpr int max_groups = hw::max_groups;

    // Inputs i to i + 3, and those 16 further. Weights are stored signed, as four bits of two's complement: 8 more
    // makes them 0 to 15.
    template <int i>
    static void add(__m256i (&products)[G][R], const Block* const (&blocks)[G], const int8_t* const (&x)[R]) {
        const __m256i eights = _mm256_set1_epi8(static_cast<char>(0x88));
        __m256i lower[G], upper[G];
        for (int g = 0; g < G; g++) {
            const __m256i both = _mm256_xor_si256(fours_of<i % 8 == 4>(blocks[g]->quants + 64 * (i / 8)), eights);
            lower[g] = lower_bits(both);
            upper[g] = upper_bits(both);
        }
        add_four(products, lower, x, i);
        add_four(products, upper, x, i + 16);
    }

    static void run(const Block* blocks, int64_t n_blocks, const QuantizedRow* rows, float* out, int64_t stride) {
        __m256 sums[G][R] = {};
        for (int64_t b = 0; b < n_blocks; b++) {
            const Block* at[G];
            const int8_t* x[R];
            for (int g = 0; g < G; g++) {
                at[g] = blocks + g * n_blocks + b;
                ask_ahead<R, G>(at[g], 0, sizeof(Block), n_blocks - b, n_blocks);
            }
            for (int r = 0; r < R; r++) {
                x[r] = rows[r].numbers + b * Block::n_inputs;
            }
            __m256i products[G][R] = {};
            add<0>(products, at, x);
            add<4>(products, at, x);
            add<8>(products, at, x);
            add<12>(products, at, x);
            for (int r = 0; r < R; r++) {
                const __m256 scale = _mm256_set1_ps(rows[r].scales[b]);
                const __m256i eight_times = _mm256_set1_epi32(rows[r].sums[b]);
                for (int g = 0; g < G; g++) {
                    const __m256 dots = _mm256_cvtepi32_ps(_mm256_sub_epi32(whole(products[g][r]), eight_times));
                    sums[g][r] = _mm256_fmadd_ps(dots, _mm256_mul_ps(scales_of(at[g]->scales), scale), sums[g][r]);
                }
            }
        }
        for (int g = 0; g < G; g++) {
            for (int r = 0; r < R; r++) {
                store(out + r * stride + 8 * g, sums[g][r]);
            }
        }
    }
};

// One group of outputs: with its parts, two are more than registers hold.
template <int R, int G>
struct Q4KTile {
    using Block = Q4KBlock;
    static constexpr int64_t n_outputs = 8;
    static constexpr int max_groups = 1;

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

    // Inputs i to i + 3 of a part, whose weights are the lower or the upper bits of its quants.
    template <bool is_upper, int i>
    static void add(__m256i (&products)[1][R], const uint8_t* quants, const int8_t* const (&x)[R]) {
        const __m256i both = fours_of<i % 8 == 4>(quants + 64 * (i / 8));
        const __m256i weights[1] = {is_upper ? upper_bits(both) : lower_bits(both)};
        add_four(products, weights, x, i);
    }

    // dots: and those of a part, with its scales.
    template <bool is_upper>
    static void add_part(__m256i (&dots)[R], const uint8_t* quants, const QuantizedRow* rows, int64_t input,
                         __m256i scales) {
        const int8_t* x[R];
        for (int r = 0; r < R; r++) {
            x[r] = rows[r].numbers + input;
        }
        __m256i products[1][R] = {};
        add<is_upper, 0>(products, quants, x);
        add<is_upper, 4>(products, quants, x);
        add<is_upper, 8>(products, quants, x);
        add<is_upper, 12>(products, quants, x);
        add<is_upper, 16>(products, quants, x);
        add<is_upper, 20>(products, quants, x);
        add<is_upper, 24>(products, quants, x);
        add<is_upper, 28>(products, quants, x);
        for (int r = 0; r < R; r++) {
            dots[r] = _mm256_add_epi32(dots[r], scaled(products[0][r], scales));
        }
    }

    static void run(const Block* blocks, int64_t n_blocks, const QuantizedRow* rows, float* out, int64_t stride) {
        __m256 sums[R] = {};
        __m256 taken[R] = {};  // by the mins
        for (int64_t b = 0; b < n_blocks; b++) {
            const Block& block = blocks[b];
            const Parts parts(block);
            __m256i dots[R] = {};
            for (int64_t part = 0; part < Block::n_parts; part += 2) {
                constexpr size_t n_pair = 2 * sizeof(Block) / Block::n_parts;
                ask_ahead<R, 1>(&block, static_cast<size_t>(part / 2) * n_pair, n_pair, n_blocks - b, n_blocks);
                const uint8_t* quants = block.quants + 128 * part;
                const int64_t input = b * Block::n_inputs + 32 * part;
                add_part<false>(dots, quants, rows, input, parts.scales_of(part));
                add_part<true>(dots, quants, rows, input + 32, parts.scales_of(part + 1));
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
