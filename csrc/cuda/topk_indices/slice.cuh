// A CTA's share of a row, and passes over it.
#pragma once

#include "../device/common.cuh"
#include "kernel.h"

namespace dsa {

constexpr int kVector = 4;                           // floats of a 16-byte load
constexpr int kVectorStep = kTopkThreads * kVector;  // between a thread's vectors

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

  // Calls f(x, i) with some entries at a time, x[4 * v + j] being entry i + v * kVectorStep + j, in
  // all threads of the CTA together. What is outside of the slice is not read and becomes NaN.
  template <int vectors, class F>
  __device__ __forceinline__ void for_each_tile(F f) const {
    constexpr int kTile = vectors * kVectorStep;
    const float* at = data - head + threadIdx.x * kVector;
    int i = static_cast<int>(threadIdx.x) * kVector - head;
#pragma unroll 1
    for (int tile = 0; tile < head + size; tile += kTile, i += kTile, at += kTile) {
      float x[vectors * kVector];
      const bool whole = tile >= head && tile + kTile <= head + size;
#pragma unroll
      for (int v = 0; v < vectors; ++v) {
        if (whole || (i + v * kVectorStep >= 0 && i + v * kVectorStep + kVector <= size))
          load_vector(at + v * kVectorStep, x + v * kVector);
        else
          load_entries(at + v * kVectorStep, i + v * kVectorStep, x + v * kVector);
      }
      f(x, i);
    }
  }

 private:
  __device__ __forceinline__ static void load_vector(const float* from, float* x) {
    const float4 vector = *reinterpret_cast<const float4*>(from);
    x[0] = vector.x, x[1] = vector.y, x[2] = vector.z, x[3] = vector.w;
  }
  __device__ __forceinline__ void load_entries(const float* from, int i, float* x) const {
#pragma unroll
    for (int j = 0; j < kVector; ++j) x[j] = contains(i + j) ? from[j] : __int_as_float(0x7fffffff);
  }
};

}  // namespace dsa
