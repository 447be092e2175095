// The key of rank k by radix: digits from the top, each found in a histogram of the keys that
// agree in the digits before.
#pragma once

#include "../device/scan.cuh"
#include "kernel.h"
#include "key.cuh"

namespace dsa {

constexpr int kBins = 2048, kDigit = 11;
constexpr int kTopkWarps = kTopkThreads / kWarp;

// Selected are the keys with key >> shift above `prefix`, and of the `count` that equal it `need`.
struct Threshold {
  uint32_t prefix;
  int shift, need, count;

  __device__ __forceinline__ uint32_t digits(uint32_t key) const {
    return static_cast<uint32_t>(uint64_t{key} >> shift);
  }
  __device__ __forceinline__ bool above(uint32_t key) const { return digits(key) > prefix; }
  __device__ __forceinline__ bool tied(uint32_t key) const { return digits(key) == prefix; }
};

struct HistogramShared {
  alignas(16) uint32_t counts[kBins];
  uint32_t warp_sums[kTopkWarps];
  Threshold found;
};

// In all lanes together. Long runs of equal keys would make every lane wait for each other.
__device__ __forceinline__ void count_bin(uint32_t* counts, bool counted, uint32_t bin) {
  const uint32_t members = __ballot_sync(0xffffffff, counted);
  if (!counted) return;
  int all_equal;
  __match_all_sync(members, bin, &all_equal);
  if (!all_equal)
    atomicAdd(&counts[bin], 1);
  else if (lane_index() == __ffs(members) - 1)
    atomicAdd(&counts[bin], __popc(members));
}

// `t` narrowed to the bin, from the top, in which its need-th key lies: of `bits` more digits.
// Each thread looks at four bins.
__device__ __forceinline__ Threshold narrow(HistogramShared& s, const Threshold& t, int bits) {
  static_assert(kBins == 4 * kTopkThreads);
  const int first = kBins - 4 - 4 * static_cast<int>(threadIdx.x);
  const uint4 counts = *reinterpret_cast<const uint4*>(&s.counts[first]);
  const uint32_t of_bin[] = {counts.w, counts.z, counts.y, counts.x};
  const uint32_t mine = counts.x + counts.y + counts.z + counts.w;
  const uint32_t up_to = warp_inclusive_sum(mine);
  const uint32_t of_warp = __shfl_sync(0xffffffff, up_to, kWarp - 1);
  int above = block_sums_of_warps(of_warp, s.warp_sums).before + up_to - mine;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int count = of_bin[i];
    if (above < t.need && t.need <= above + count)
      s.found = {t.prefix << bits | (first + 3 - i), t.shift - bits, t.need - above, count};
    above += count;
  }
  __syncthreads();
  return s.found;
}

// `visit(f)` calls f(counted, key) for all keys, in whole warps; `reduce()` turns s.counts of this
// CTA into those of all that share the row.
template <class Visit, class Reduce>
__device__ __forceinline__ Threshold find_threshold(HistogramShared& s, int k, Visit visit,
                                                    Reduce reduce) {
  Threshold t{0, 32, k, 0};
#pragma unroll 1
  while (t.shift > 0 && t.need != t.count) {
    const int bits = min(kDigit, t.shift), shift = t.shift - bits;
    for (int i = threadIdx.x; i < kBins; i += kTopkThreads) s.counts[i] = 0;
    __syncthreads();
    visit([&](bool counted, uint32_t key) {
      count_bin(s.counts, counted && t.tied(key), key >> shift & ((1u << bits) - 1));
    });
    __syncthreads();
    reduce();
    t = narrow(s, t, bits);
  }
  return t;
}

}  // namespace dsa
