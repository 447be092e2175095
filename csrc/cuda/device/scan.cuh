// Prefix sums over the lanes of a warp and the threads of a CTA.
#pragma once

#include "common.cuh"

namespace dsa {

// Of this lane and those before it.
template <class T>
__device__ __forceinline__ T warp_inclusive_sum(T x) {
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const T other = __shfl_up_sync(0xffffffff, x, offset);
    if (lane_index() >= offset) x += other;
  }
  return x;
}

struct Sums {
  uint32_t before, total;
};

// Of the warps before this one, and of all; `x` is this warp's, equal in all lanes. Each warp needs
// a word of shared memory, which may be used again after a barrier.
template <int warps>
__device__ __forceinline__ Sums block_sums_of_warps(uint32_t x, uint32_t (&of_warp)[warps]) {
  const int warp = warp_index();
  if (lane_index() == 0) of_warp[warp] = x;
  __syncthreads();
  const uint32_t mine = lane_index() < warps ? of_warp[lane_index()] : 0;
  const uint32_t before = __reduce_add_sync(0xffffffff, lane_index() < warp ? mine : 0);
  return {before, __reduce_add_sync(0xffffffff, mine)};
}

}  // namespace dsa
