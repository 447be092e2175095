// float4 and its kin: aggregates whose alignment lets one instruction move them. They have no
// arithmetic, which TileLang writes out by element.
#pragma once

#include "geometry.h"

namespace hip_headers {

template <typename T>
struct Vector1 {
  T x;
};

template <typename T>
struct __align__(2 * sizeof(T)) Vector2 {
  T x, y;
};

template <typename T>
struct Vector3 {
  T x, y, z;
};

// No access is wider than 16 bytes, so no more alignment is promised.
template <typename T>
struct __align__(sizeof(T) < 4 ? 4 * sizeof(T) : 16) Vector4 {
  T x, y, z, w;
};

}  // namespace hip_headers

#define HIP_VECTORS(T, name)                                              \
  using name##1 = hip_headers::Vector1<T>;                                \
  using name##2 = hip_headers::Vector2<T>;                                \
  using name##3 = hip_headers::Vector3<T>;                                \
  using name##4 = hip_headers::Vector4<T>;                                \
  __device__ __forceinline__ name##1 make_##name##1(T x) {                \
    return {x};                                                           \
  }                                                                       \
  __device__ __forceinline__ name##2 make_##name##2(T x, T y) {           \
    return {x, y};                                                        \
  }                                                                       \
  __device__ __forceinline__ name##3 make_##name##3(T x, T y, T z) {      \
    return {x, y, z};                                                     \
  }                                                                       \
  __device__ __forceinline__ name##4 make_##name##4(T x, T y, T z, T w) { \
    return {x, y, z, w};                                                  \
  }

HIP_VECTORS(char, char)
HIP_VECTORS(unsigned char, uchar)
HIP_VECTORS(short, short)
HIP_VECTORS(unsigned short, ushort)
HIP_VECTORS(int, int)
HIP_VECTORS(unsigned, uint)
HIP_VECTORS(long, long)
HIP_VECTORS(unsigned long, ulong)
HIP_VECTORS(long long, longlong)
HIP_VECTORS(unsigned long long, ulonglong)
HIP_VECTORS(float, float)
HIP_VECTORS(double, double)

#undef HIP_VECTORS
