// Global memory by vectors: the widest accesses where all addresses are aligned, pieces elsewhere.
//
// `access` is what every address of a kernel's tensors is aligned to, as far as the kernel uses it:
// 16, 4 or 1. The mapping of threads to data is the same for all.
#pragma once

#include "common.cuh"

namespace dsa {

template <int bytes>
struct Words {
  static_assert(bytes % 4 == 0);
  static constexpr int kCount = bytes / 4;
  uint32_t at[kCount];
};

// Of memory that this kernel does not write.
template <int bytes, int access>
__device__ __forceinline__ Words<bytes> load(const void* from) {
  Words<bytes> w;
  if constexpr (access >= 16 && bytes >= 16) {
    static_assert(bytes % 16 == 0);
#pragma unroll
    for (int i = 0; i < bytes / 16; ++i) {
      const uint4 piece = __ldg(static_cast<const uint4*>(from) + i);
      w.at[4 * i] = piece.x, w.at[4 * i + 1] = piece.y;
      w.at[4 * i + 2] = piece.z, w.at[4 * i + 3] = piece.w;
    }
  } else if constexpr (access >= 8 && bytes == 8) {
    const uint2 piece = __ldg(static_cast<const uint2*>(from));
    w.at[0] = piece.x, w.at[1] = piece.y;
  } else {
#pragma unroll
    for (int i = 0; i < bytes / 4; ++i) {
      if constexpr (access >= 4) {
        w.at[i] = __ldg(static_cast<const uint32_t*>(from) + i);
      } else {
        const auto* b = static_cast<const uint8_t*>(from) + 4 * i;
        w.at[i] = __ldg(b) | uint32_t{__ldg(b + 1)} << 8 | uint32_t{__ldg(b + 2)} << 16 |
                  uint32_t{__ldg(b + 3)} << 24;
      }
    }
  }
  return w;
}

template <int access, int bytes>
__device__ __forceinline__ void store(void* to, const Words<bytes>& w) {
  if constexpr (access >= 16 && bytes >= 16) {
#pragma unroll
    for (int i = 0; i < bytes / 16; ++i) {
      static_cast<uint4*>(to)[i] =
          make_uint4(w.at[4 * i], w.at[4 * i + 1], w.at[4 * i + 2], w.at[4 * i + 3]);
    }
  } else if constexpr (access >= 8 && bytes == 8) {
    *static_cast<uint2*>(to) = make_uint2(w.at[0], w.at[1]);
  } else {
#pragma unroll
    for (int i = 0; i < bytes / 4; ++i) {
      if constexpr (access >= 4) {
        static_cast<uint32_t*>(to)[i] = w.at[i];
      } else {
#pragma unroll
        for (int b = 0; b < 4; ++b)
          static_cast<uint8_t*>(to)[4 * i + b] = static_cast<uint8_t>(w.at[i] >> 8 * b);
      }
    }
  }
}

// Eight numbers, bfloat16 or float32.
template <class T>
using Vector8 = Words<8 * sizeof(T)>;

template <class T, int n>
__device__ __forceinline__ void to_float(const Words<n * sizeof(T)>& w, float (&x)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) {
    const uint32_t word = w.at[i / (4 / sizeof(T))];
    const uint32_t half = i % 2 == 0 ? word << 16 : word & 0xffff0000;
    x[i] = __uint_as_float(sizeof(T) == 4 ? word : half);
  }
}

// Rounds to the nearest.
template <class T, int n>
__device__ __forceinline__ Words<n * sizeof(T)> from_float(const float (&x)[n]) {
  Words<n * sizeof(T)> w;
#pragma unroll
  for (int i = 0; i < w.kCount; ++i) {
    if constexpr (sizeof(T) == 4) {
      w.at[i] = __float_as_uint(x[i]);
    } else {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
      w.at[i] = *reinterpret_cast<const uint32_t*>(&pair);
    }
  }
  return w;
}

// Pairs of bfloat16, every NaN of them 0x7fc0, as the caches' contracts have it.
__device__ __forceinline__ void plain_nan(Words<16>& pairs) {
  uint32_t carry = 0;  // into the sign, of magnitudes above infinity's
#pragma unroll
  for (uint32_t word : pairs.at) carry |= (word & 0x7fff7fff) + 0x007f007f;
  if ((carry & 0x80008000) == 0) return;
#pragma unroll
  for (uint32_t& word : pairs.at) {
    const uint32_t above = ((word & 0x7fff7fff) + 0x007f007f) & 0x80008000;
    const uint32_t mask = above | (above - (above >> 15));  // 0xffff for each NaN
    word = (word & ~mask) | (mask & 0x7fc07fc0);
  }
}

// The maximum of `lanes` neighbouring lanes, in each of them. All lanes take part.
template <int lanes>
__device__ __forceinline__ float max_of_lanes(float x) {
#pragma unroll
  for (int stride = lanes / 2; stride > 0; stride /= 2)
    x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, stride));
  return x;
}

__device__ __forceinline__ int64_t integer_at(const void* integers, bool wide, int64_t i) {
  return wide ? __ldg(static_cast<const int64_t*>(integers) + i)
              : __ldg(static_cast<const int32_t*>(integers) + i);
}

}  // namespace dsa
