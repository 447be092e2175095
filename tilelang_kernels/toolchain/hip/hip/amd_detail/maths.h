// Maths that the backend expands by itself. What ROCm has in bitcode libraries (tanh, erf, pow, sin
// and the like) is absent.
#pragma once

#include "geometry.h"

__device__ __forceinline__ float __int_as_float(int x) {
  return __builtin_bit_cast(float, x);
}
__device__ __forceinline__ float __uint_as_float(unsigned x) {
  return __builtin_bit_cast(float, x);
}
__device__ __forceinline__ int __float_as_int(float x) {
  return __builtin_bit_cast(int, x);
}
__device__ __forceinline__ unsigned __float_as_uint(float x) {
  return __builtin_bit_cast(unsigned, x);
}

__device__ __forceinline__ int __popc(unsigned x) {
  return __builtin_popcount(x);
}
__device__ __forceinline__ int __popcll(unsigned long long x) {
  return __builtin_popcountll(x);
}
// Of 0 the builtin is undefined; HIP's function is not.
__device__ __forceinline__ int __clz(int x) {
  return x ? __builtin_clz(x) : 32;
}

// Of the C library's name and accuracy: subnormal arguments and results are right, which the
// instruction alone does not do.
#define HIP_UNARY(name)                               \
  __device__ __forceinline__ float name##f(float x) { \
    return __builtin_##name##f(x);                    \
  }
HIP_UNARY(ceil)
HIP_UNARY(exp2)
HIP_UNARY(fabs)
HIP_UNARY(floor)
HIP_UNARY(nearbyint)
HIP_UNARY(round)
HIP_UNARY(sqrt)
HIP_UNARY(trunc)
#undef HIP_UNARY

__device__ __forceinline__ double round(double x) {
  return __builtin_round(x);
}

// One instruction, and a multiplication where its base is not 2.
__device__ __forceinline__ float __log2f(float x) {
  return __builtin_amdgcn_logf(x);
}
__device__ __forceinline__ float __logf(float x) {
  constexpr float kLn2 = 0x1.62e430p-1f;
  return kLn2 * __builtin_amdgcn_logf(x);
}
__device__ __forceinline__ float __expf(float x) {
  constexpr float kLog2E = 0x1.715476p+0f;
  return __builtin_amdgcn_exp2f(kLog2E * x);
}

// Generated code calls max and min unqualified.
#define HIP_MAX_MIN(T)                         \
  __device__ __forceinline__ T max(T a, T b) { \
    return a > b ? a : b;                      \
  }                                            \
  __device__ __forceinline__ T min(T a, T b) { \
    return a < b ? a : b;                      \
  }
HIP_MAX_MIN(int)
HIP_MAX_MIN(unsigned)
HIP_MAX_MIN(long)
HIP_MAX_MIN(unsigned long)
HIP_MAX_MIN(long long)
HIP_MAX_MIN(unsigned long long)
#undef HIP_MAX_MIN
// Of a number and a NaN: the number, as fmaxf.
__device__ __forceinline__ float max(float a, float b) {
  return __builtin_fmaxf(a, b);
}
__device__ __forceinline__ float min(float a, float b) {
  return __builtin_fminf(a, b);
}
