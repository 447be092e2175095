// A CTA's share of a row, and passes over it.
#pragma once

#include "../device/common.cuh"
#include "kernel.h"

namespace dsa {

constexpr int kVector = 4;       // floats of a 16-byte load
constexpr int kTileVectors = 4;  // of a thread, in flight together
constexpr int kTileEntries = kTileVectors * kVector;
constexpr int kTile = kTopkThreads * kTileEntries;

// Vector v holds entries v * kVector - head and on, so that all vectors are aligned.
struct Slice {
  const float* data;
  int first;  // data[0]'s index in the row
  int size;
  int head;

  __device__ __forceinline__ Slice(const float* data, int first, int size)
      : data(data),
        first(first),
        size(size),
        head(reinterpret_cast<uintptr_t>(data) / 4 % kVector) {}

  // The share of CTA `rank` of `count`: whole vectors.
  __device__ __forceinline__ Slice share(int rank, int count) const {
    const int vectors = ceil_div(head + size, kVector);
    const int each = ceil_div(vectors, count) * kVector;
    const int begin = min(max(rank * each - head, 0), size);
    const int end = min(max((rank + 1) * each - head, 0), size);
    return Slice(data + begin, first + begin, end - begin);
  }

  __device__ __forceinline__ bool contains(int i) const {
    return static_cast<uint32_t>(i) < static_cast<uint32_t>(size);
  }

  // Entries i to i + 3, the first of a vector; what is outside becomes NaN and is not read.
  __device__ __forceinline__ void load(int i, float* x) const {
    if (i >= 0 && i + kVector <= size) {
      const float4 vector = *reinterpret_cast<const float4*>(data + i);
      x[0] = vector.x, x[1] = vector.y, x[2] = vector.z, x[3] = vector.w;
    } else {
#pragma unroll
      for (int j = 0; j < kVector; ++j)
        x[j] = contains(i + j) ? data[i + j] : __int_as_float(0x7fffffff);
    }
  }

  // Calls f(x, i) with kTileEntries entries at a time, x[4 * v + j] being entry i(v) + j, in all
  // threads of the CTA together.
  template <class F>
  __device__ __forceinline__ void for_each_tile(F f) const {
    const int thread_first = static_cast<int>(threadIdx.x) * kVector - head;
#pragma unroll 1
    for (int tile = 0; tile < head + size; tile += kTile) {
      const auto index = [=](int v) { return tile + thread_first + v * kTopkThreads * kVector; };
      float x[kTileEntries];
#pragma unroll
      for (int v = 0; v < kTileVectors; ++v) load(index(v), x + v * kVector);
      f(x, index);
    }
  }
};

}  // namespace dsa
