// The contract's order of floats as an order of unsigned integers: NaN is 0, then -inf to inf; -0
// and +0 are the same key.
#pragma once

#include "../device/common.cuh"

namespace dsa {

constexpr uint32_t kNanKey = 0, kZeroKey = 0x80000000, kMinusInfinityKey = 0x00800000;

__device__ __forceinline__ uint32_t key_of(float x) {
  const uint32_t bits = __float_as_uint(x), magnitude = bits & 0x7fffffff;
  if (DSA_FAULT != 201 && magnitude > 0x7f800000) return kNanKey;
  return bits == magnitude ? kZeroKey + magnitude : kZeroKey - magnitude;
}

// Of keys that are no NaN's.
__device__ __forceinline__ float value_of(uint32_t key) {
  return __uint_as_float(key >= kZeroKey ? key - kZeroKey : (kZeroKey - key) | 0x80000000);
}

}  // namespace dsa
