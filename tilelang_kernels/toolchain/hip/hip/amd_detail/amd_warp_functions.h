// Votes and shuffles of a wavefront.
#pragma once

#include <type_traits>

#include "geometry.h"

__device__ __forceinline__ unsigned long long __ballot(int predicate) {
  return __builtin_amdgcn_ballot_w64(predicate != 0);
}
__device__ __forceinline__ int __any(int predicate) {
  return __ballot(predicate) != 0;
}
__device__ __forceinline__ int __all(int predicate) {
  return __ballot(predicate == 0) == 0;
}

namespace hip_headers {

__device__ __forceinline__ int lane() {
  return __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0u));
}

// What another lane gives. The instruction moves 32 bits and addresses lanes in bytes.
template <typename T>
__device__ __forceinline__ T from_lane(T value, int source) {
  struct Words {
    int word[sizeof(T) / sizeof(int)];
  };
  auto words = __builtin_bit_cast(Words, value);
  for (int& word : words.word) word = __builtin_amdgcn_ds_bpermute(4 * source, word);
  return __builtin_bit_cast(T, words);
}

// HIP has overloads for these only; TileLang brings its own for narrower types.
template <typename T>
using Shuffled = std::enable_if_t<std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), T>;

}  // namespace hip_headers

// Lanes exchange within groups of `width`, a power of two; a lane whose source lies outside its
// group keeps its own value.

template <typename T>
__device__ __forceinline__ hip_headers::Shuffled<T> __shfl(T value, int source,
                                                           int width = warpSize) {
  const int first = hip_headers::lane() & -width;
  return hip_headers::from_lane(value, first + (source & (width - 1)));
}

template <typename T>
__device__ __forceinline__ hip_headers::Shuffled<T> __shfl_xor(T value, int mask,
                                                               int width = warpSize) {
  const int lane = hip_headers::lane(), end = (lane & -width) + width, source = lane ^ mask;
  return hip_headers::from_lane(value, source < end ? source : lane);
}

template <typename T>
__device__ __forceinline__ hip_headers::Shuffled<T> __shfl_up(T value, unsigned delta,
                                                              int width = warpSize) {
  const int lane = hip_headers::lane(), first = lane & -width, source = lane - int(delta);
  return hip_headers::from_lane(value, source >= first ? source : lane);
}

template <typename T>
__device__ __forceinline__ hip_headers::Shuffled<T> __shfl_down(T value, unsigned delta,
                                                                int width = warpSize) {
  const int lane = hip_headers::lane(), end = (lane & -width) + width, source = lane + int(delta);
  return hip_headers::from_lane(value, source < end ? source : lane);
}
