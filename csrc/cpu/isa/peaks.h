// Loops that do nothing but reach the machine's limits; see peaks_table.h. The numbers that they
// give are what % of peak in the benchmarks is of.
#pragma once

#include "peaks_table.h"
#include "vec.h"

namespace dsa::cpu::DSA_ISA_NAMESPACE {
namespace {

// Chains of dependent operations: more than the latency times the units of any machine known (FMA:
// 4 x 2), few enough to stay in 16 registers with their operands. Twice each, so that the loop
// itself costs nothing.
#if DSA_VECTOR_BYTES == 16
constexpr int kChains = 8;  // a multiplication and an addition each, through another register
#else
constexpr int kChains = 12;
#endif

template <class T>
inline void keep(T value) {
  volatile T kept = value;
  (void)kept;
}

inline int64_t peak_fma(int64_t iterations) {
  VecF chains[kChains];
  for (int i = 0; i < kChains; ++i) chains[i] = splat(0.1f * static_cast<float>(i));
  const VecF factor = splat(0.999f), term = splat(1e-3f);  // tends to 1: never subnormal
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 2
    for (int twice = 0; twice < 2; ++twice) {
#pragma GCC unroll 16
      for (int i = 0; i < kChains; ++i) chains[i] = multiply_add(chains[i], factor, term);
    }
  }
  VecF sum = chains[0];
  for (int i = 1; i < kChains; ++i) sum += chains[i];
  keep(sum[0]);
  return iterations * 2 * kChains * kLanes * 2;
}

#if defined(__AVX512BF16__)
inline int64_t peak_bf16_dot(int64_t iterations) {
  VecF chains[kChains];
  for (int i = 0; i < kChains; ++i) chains[i] = splat(0.1f * static_cast<float>(i));
  const auto ones = reinterpret_cast<__m512bh>(splat(uint32_t{0x3f803f80}));
  const auto small = reinterpret_cast<__m512bh>(splat(uint32_t{0x38003800}));
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 2
    for (int twice = 0; twice < 2; ++twice) {
#pragma GCC unroll 16
      for (int i = 0; i < kChains; ++i) chains[i] = _mm512_dpbf16_ps(chains[i], ones, small);
    }
  }
  VecF sum = chains[0];
  for (int i = 1; i < kChains; ++i) sum += chains[i];
  keep(sum[0]);
  return iterations * 2 * kChains * kLanes * 4;
}
constexpr auto kPeakBf16OrNull = peak_bf16_dot;
#else
constexpr int64_t (*kPeakBf16OrNull)(int64_t) = nullptr;
#endif

inline uint64_t peak_read(const void* data, int64_t bytes, int64_t repeats) {
  const auto* words = static_cast<const uint32_t*>(data);
  VecI sums[8] = {};
  for (int64_t r = 0; r < repeats; ++r) {
    for (int64_t i = 0; i + 8 * kLanes <= bytes / 4; i += 8 * kLanes) {
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) sums[j] ^= load(words + i + j * kLanes);
    }
  }
  VecI sum = sums[0];
  for (int j = 1; j < 8; ++j) sum ^= sums[j];
  uint64_t folded = 0;
  for (int j = 0; j < kLanes; ++j) folded = folded * 31 + static_cast<uint32_t>(sum[j]);
  return folded;
}

constexpr Peaks make_peaks() {
  return {peak_fma, kPeakBf16OrNull, peak_read};
}

}  // namespace
}  // namespace dsa::cpu::DSA_ISA_NAMESPACE
