// One pass over a slice: the entries from a guessed threshold up go into shared memory.
#pragma once

#include "../device/scan.cuh"
#include "key.cuh"
#include "slice.cuh"

namespace dsa {

// Entries of keys >= `low` are collected; where `strict`, those above it, and those equal to it are
// counted.
struct Guess {
  uint32_t low;
  bool strict;
};

constexpr int kTileVectors = 4;  // of a thread, in flight together
constexpr int kTileEntries = kTileVectors * kVector;

struct CollectShared {
  uint32_t count, ties;
};

// Each thread's tile: registers have no index that a loop over few hits could use.
using Staged = float4[kTileVectors][kTopkThreads];

// Where this lane's hits go, behind those of other lanes and of whichever warps came before; -1 if
// there is no room for all of the warp's.
__device__ __forceinline__ int append(CollectShared& s, int capacity, int hits) {
  const int up_to = warp_inclusive_sum(hits);
  int first = 0;
  if (lane_index() == kWarp - 1 && up_to > 0) first = atomicAdd(&s.count, up_to);
  first = __shfl_sync(0xffffffff, first, kWarp - 1);
  const bool fits = first + __shfl_sync(0xffffffff, up_to, kWarp - 1) <= capacity;
  return fits ? first + up_to - hits : -1;
}

template <bool strict>
__device__ __forceinline__ void collect(CollectShared& s, Staged& staged, uint2* candidates,
                                        int capacity, const Slice& slice, uint32_t low) {
  // A float comparison takes -0 for +0 and leaves NaN out, as the order of keys does.
  const float from = value_of(max(low + strict, kMinusInfinityKey));
  const float at = strict && low != kNanKey ? value_of(low) : __int_as_float(0x7fffffff);
  float4* const mine = &staged[0][threadIdx.x];
  int ties = 0;
  slice.for_each_tile<kTileVectors>([&](const float (&x)[kTileEntries], int i) {
    uint32_t hits = 0;
#pragma unroll
    for (int j = 0; j < kTileEntries; ++j) {
      if (x[j] >= from) hits |= 1u << j;
      if (strict && x[j] == at) ++ties;
    }
    if (!__any_sync(0xffffffff, hits)) return;
    int place = append(s, capacity, __popc(hits));
    if (place < 0) return;
#pragma unroll
    for (int v = 0; v < kTileVectors; ++v)
      mine[v * kTopkThreads] = make_float4(x[v * 4], x[v * 4 + 1], x[v * 4 + 2], x[v * 4 + 3]);
    for (; hits; hits &= hits - 1) {
      const int j = __ffs(hits) - 1, offset = j / kVector * kVectorStep + j % kVector;
      const float value = reinterpret_cast<const float*>(mine)[offset];
      candidates[place++] = make_uint2(__float_as_uint(value), i + offset);
    }
  });
  if (strict) {
    ties = __reduce_add_sync(0xffffffff, ties);
    if (lane_index() == 0 && ties > 0) atomicAdd(&s.ties, ties);
  }
}

}  // namespace dsa
