// The k largest of each row of n floats, as indices in rising order; of equal values the smallest
// indices win. Values compare as IEEE 754 totalOrder has it: -NaN < -inf < -0 < +0 < +inf < NaN.
// A radix select: four passes narrow the k-th value down by 8 bits each, with a histogram in shared
// memory; one more pass gathers.
#include <cstdint>

constexpr int THREADS = 256, WARPS = THREADS / 32, BINS = 256;

struct Shared {
  unsigned counts[BINS];
  unsigned prefix, remaining;
  int warp_greater[WARPS], warp_equal[WARPS];
};

// Unsigned order of keys is the order of values.
__device__ unsigned key_of(float x) {
  const unsigned bits = __float_as_uint(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Finds the bin in which the `remaining`-th value from the top lies. Thread t looks at bin 255 - t.
__device__ void narrow(Shared& s, int shift) {
  const int bin = BINS - 1 - threadIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int count = s.counts[bin];
  int above = count;  // this bin and those above it
  for (int offset = 1; offset < 32; offset *= 2) {
    const int other = __shfl_up_sync(~0u, above, offset);
    if (lane >= offset) above += other;
  }
  if (lane == 31) s.warp_greater[warp] = above;
  __syncthreads();
  for (int w = 0; w < warp; ++w) above += s.warp_greater[w];
  const int remaining = s.remaining;
  __syncthreads();
  if (above >= remaining && above - count < remaining) {
    s.prefix |= static_cast<unsigned>(bin) << shift;
    s.remaining = remaining - (above - count);
  }
  __syncthreads();
}

extern "C" __global__ void __launch_bounds__(THREADS)
    topk(const float* values, int* indices, int n, int k) {
  __shared__ Shared s;
  const float* row = values + int64_t{blockIdx.x} * n;
  int* out = indices + int64_t{blockIdx.x} * k;
  if (threadIdx.x == 0) {
    s.prefix = 0;
    s.remaining = k;
  }
  for (int shift = 24; shift >= 0; shift -= 8) {
    s.counts[threadIdx.x] = 0;
    __syncthreads();
    const unsigned prefix = s.prefix;
#pragma unroll 1
    for (int i = threadIdx.x; i < n; i += THREADS) {
      const unsigned key = key_of(row[i]);
      // A shift by 32 is undefined in C++, so the first pass needs its own case.
      if (shift == 24 || key >> (shift + 8) == prefix >> (shift + 8))
        atomicAdd(&s.counts[key >> shift & (BINS - 1)], 1);
    }
    __syncthreads();
    narrow(s, shift);
  }

  const unsigned threshold = s.prefix;
  const int equal_wanted = s.remaining;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const unsigned below = (1u << lane) - 1;
  int taken = 0, equal_seen = 0;
  for (int first = 0; first < n; first += THREADS) {
    const int i = first + threadIdx.x;
    const unsigned key = i < n ? key_of(row[i]) : 0;
    const bool greater = i < n && key > threshold, equal = i < n && key == threshold;
    const unsigned greater_mask = __ballot_sync(~0u, greater);
    const unsigned equal_mask = __ballot_sync(~0u, equal);
    if (lane == 0) {
      s.warp_greater[warp] = __popc(greater_mask);
      s.warp_equal[warp] = __popc(equal_mask);
    }
    __syncthreads();
    int greater_before = taken - min(equal_seen, equal_wanted), equal_before = equal_seen;
    int greater_total = greater_before, equal_total = equal_seen;
    for (int w = 0; w < WARPS; ++w) {
      if (w < warp) {
        greater_before += s.warp_greater[w];
        equal_before += s.warp_equal[w];
      }
      greater_total += s.warp_greater[w];
      equal_total += s.warp_equal[w];
    }
    greater_before += __popc(greater_mask & below);
    equal_before += __popc(equal_mask & below);
    if (greater || (equal && equal_before < equal_wanted))
      out[greater_before + min(equal_before, equal_wanted)] = i;
    equal_seen = equal_total;
    taken = greater_total + min(equal_total, equal_wanted);
    __syncthreads();  // the counts may be overwritten
  }
}
