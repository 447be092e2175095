// What the benchmarks measure a machine's own limits with: one table per ISA level.
#pragma once

#include <cstdint>

namespace dsa::cpu {

struct Peaks {
  // fp32 multiply-adds on registers; returns how many FLOPs were done.
  int64_t (*fma)(int64_t iterations);
  // bf16 pair dot products on registers, likewise; null where the level has none.
  int64_t (*bf16_dot)(int64_t iterations);
  // Reads `bytes`, a multiple of 512, `repeats` times over; returns something made of them all.
  uint64_t (*read)(const void* data, int64_t bytes, int64_t repeats);
};

extern const Peaks kScalarPeaks;
#if defined(__x86_64__)
extern const Peaks kAvx2Peaks, kAvx512Peaks, kAvx512Bf16Peaks;
#endif

}  // namespace dsa::cpu
