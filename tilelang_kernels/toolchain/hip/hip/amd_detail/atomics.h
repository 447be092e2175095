// Atomics as HIP defines them without a suffix: relaxed, at the scope of the device.
#pragma once

#include "geometry.h"

#define HIP_ATOMIC(function, builtin, T)                                        \
  __device__ __forceinline__ T function(T* address, T value) {                  \
    return builtin(address, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT); \
  }
#define HIP_ARITHMETIC_ATOMICS(T)                  \
  HIP_ATOMIC(atomicAdd, __hip_atomic_fetch_add, T) \
  HIP_ATOMIC(atomicMax, __hip_atomic_fetch_max, T) \
  HIP_ATOMIC(atomicMin, __hip_atomic_fetch_min, T)
#define HIP_INTEGER_ATOMICS(T) \
  HIP_ARITHMETIC_ATOMICS(T)    \
  HIP_ATOMIC(atomicOr, __hip_atomic_fetch_or, T)

HIP_INTEGER_ATOMICS(int)
HIP_INTEGER_ATOMICS(unsigned)
HIP_INTEGER_ATOMICS(unsigned long)
HIP_INTEGER_ATOMICS(unsigned long long)
HIP_ARITHMETIC_ATOMICS(float)
HIP_ARITHMETIC_ATOMICS(double)

#undef HIP_INTEGER_ATOMICS
#undef HIP_ARITHMETIC_ATOMICS
#undef HIP_ATOMIC
