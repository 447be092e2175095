// Writes the selected indices of a slice in rising order: one bit an entry in two maps, of those
// above the threshold and of those tied with it; then every warp writes its run of the maps.
#pragma once

#include "../device/scan.cuh"
#include "slice.cuh"
#include "threshold.cuh"

namespace dsa {

constexpr int kMapWords = 4096, kWindow = 32 * kMapWords;  // entries marked at a time
constexpr int kWordsOfWarp = 16, kMarkedWords = kWordsOfWarp * kTopkWarps;

struct EmitShared {
  uint32_t above[kMapWords], ties[kMapWords];
  uint32_t warp_sums[kTopkWarps];
};

// How many are selected: a sum of both fits into a word, for there are less than 2^14 above and at
// most kWindow = 2^17 ties.
struct Selected {
  int above, ties;

  __device__ __forceinline__ static uint32_t packed(uint32_t above, uint32_t ties) {
    return __popc(above) << 18 | __popc(ties);
  }
  __device__ __forceinline__ Selected plus(uint32_t packed) const {
    return {above + static_cast<int>(packed >> 18), ties + static_cast<int>(packed & 0x3ffff)};
  }
};

__device__ __forceinline__ uint32_t lowest_bits(uint32_t word, int count) {
  while (__popc(word) > count) word &= DSA_FAULT == 202 ? word - 1 : ~(0x80000000u >> __clz(word));
  return word;
}

// Marks entries of the row itself. Without `mark_above` only as far as ties are needed.
template <bool mark_above>
__device__ __forceinline__ void mark_row(EmitShared& s, const Slice& slice, int window, int words,
                                         const Threshold& t, int ties) {
#pragma unroll 1
  for (int word = 0; word < words && (mark_above || ties < t.need); word += kMarkedWords) {
    const int warp_word = word + warp_index() * kWordsOfWarp;
    uint32_t above = 0, tied = 0;
#pragma unroll
    for (int j = 0; j < kWordsOfWarp; ++j) {
      const int i = window + (warp_word + j) * 32 + lane_index();
      const bool valid = i < slice.size;
      const uint32_t key = valid ? key_of(slice.data[i]) : 0;
      const uint32_t above_word = mark_above ? __ballot_sync(0xffffffff, valid && t.above(key)) : 0;
      const uint32_t tied_word = __ballot_sync(0xffffffff, valid && t.tied(key));
      if (lane_index() == j) above = above_word, tied = tied_word;
    }
    if (lane_index() < kWordsOfWarp) {
      if (mark_above) s.above[warp_word + lane_index()] = above;
      s.ties[warp_word + lane_index()] = tied;
    }
    if (!mark_above) {
      ties += block_sums_of_warps(__reduce_add_sync(0xffffffff, __popc(tied)), s.warp_sums).total;
      __syncthreads();
    }
  }
}

// Marks candidates, (bits, index in the slice).
__device__ __forceinline__ void mark_candidates(EmitShared& s, const uint2* candidates, int count,
                                                int window, const Threshold& t) {
  for (int i = threadIdx.x; i < count; i += kTopkThreads) {
    const uint2 candidate = candidates[i];
    const uint32_t place = candidate.y - window, key = key_of(__uint_as_float(candidate.x));
    if (place >= kWindow) continue;
    if (t.above(key)) atomicOr(&s.above[place / 32], 1u << place % 32);
    if (t.tied(key)) atomicOr(&s.ties[place / 32], 1u << place % 32);
  }
}

// Writes what is marked in the first `words` words; `base` is bit 0's index in the row.
__device__ __forceinline__ Selected write_marked(EmitShared& s, int words, int base, int need,
                                                 Selected before, int* out) {
  const int rounds = ceil_div(words, kTopkThreads);
  const int first = warp_index() * rounds * kWarp + lane_index();
  uint32_t mine = 0;
  for (int j = 0; j < rounds; ++j)
    mine += Selected::packed(s.above[first + j * kWarp], s.ties[first + j * kWarp]);
  const uint32_t of_warp = __reduce_add_sync(0xffffffff, mine);
  const Sums sums = block_sums_of_warps(of_warp, s.warp_sums);
  const Selected after = before.plus(sums.total);
  if (of_warp == 0) return after;
  before = before.plus(sums.before);
#pragma unroll 1
  for (int j = 0; j < rounds; ++j) {
    const int word = first + j * kWarp;
    const uint32_t above = s.above[word], tied = s.ties[word];
    const uint32_t count = Selected::packed(above, tied), up_to = warp_inclusive_sum(count);
    const Selected here = before.plus(up_to - count);
    uint32_t taken = above | lowest_bits(tied, max(need - here.ties, 0));
    int at = here.above + min(here.ties, need);
    for (; taken; taken &= taken - 1) out[at++] = base + word * 32 + __ffs(taken) - 1;
    before = before.plus(__shfl_sync(0xffffffff, up_to, kWarp - 1));
  }
  return after;
}

// `mark(window, words, ties)` marks the entries from `window` on, `ties` ties being before them.
template <class Mark>
__device__ __forceinline__ void emit(EmitShared& s, const Slice& slice, const Threshold& t, int k,
                                     Selected before, int* out, Mark mark) {
#pragma unroll 1
  for (int window = 0; window < slice.size; window += kWindow) {
    if (before.above + min(before.ties, t.need) == k) return;
    const int words = ceil_div(min(slice.size - window, kWindow), 32);
    __syncthreads();
    for (int i = threadIdx.x; i < kMapWords; i += kTopkThreads) s.above[i] = s.ties[i] = 0;
    __syncthreads();
    mark(window, words, before.ties);
    __syncthreads();
    before = write_marked(s, words, slice.first + window, t.need, before, out);
  }
}

}  // namespace dsa
