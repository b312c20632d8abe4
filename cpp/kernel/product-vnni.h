// Sums as VNNI makes them: four products of bytes, or two of words, go into a sum of 32 bits at once. Each of its two
// forms has names of its own for these instructions: kernel/product-avx-vnni.cpp, kernel/product-avx512-vnni.cpp.
#pragma once

namespace hw {
namespace {

inline __m256i whole(__m256i sums) { return sums; }
inline __m256i scaled(__m256i sums, __m256i scales) { return _mm256_mullo_epi32(sums, scales); }
inline __m256i wide(__m128i eight) { return _mm256_cvtepu16_epi32(eight); }

}  // namespace
}  // namespace hw

#include "kernel/product-impl.h"
