// The CTAs that share a row: one, or those of a cluster.
#pragma once

#include "../device/cluster.cuh"
#include "kernel.h"

namespace dsa {

using OfCtas = uint32_t[kTopkMaxCluster];  // a value of each CTA

template <bool clustered>
struct Group;

template <>
struct Group<false> {
  static constexpr bool kClustered = false;
  static constexpr int rank = 0, size = 1;

  __device__ __forceinline__ void sync() const { __syncthreads(); }
  __device__ __forceinline__ void store_to_all(uint32_t* place, uint32_t value) const {
    *place = value;
  }
  __device__ __forceinline__ void publish(OfCtas& values, uint32_t value) const {
    if (threadIdx.x == 0) values[0] = value;
  }
};

template <>
struct Group<true> {
  static constexpr bool kClustered = true;
  const int rank = cluster_rank(), size = cluster_size();

  __device__ __forceinline__ void sync() const { cluster_sync(); }
  // At the same place in the shared memory of every CTA.
  __device__ __forceinline__ void store_to_all(uint32_t* place, uint32_t value) const {
    for (int cta = 0; cta < size; ++cta) remote_store(remote_address(place, cta), value);
  }
  __device__ __forceinline__ void publish(OfCtas& values, uint32_t value) const {
    if (threadIdx.x < size) remote_store(remote_address(&values[rank], threadIdx.x), value);
  }
};

__device__ __forceinline__ int sum_of(const OfCtas& values, int count) {
  uint32_t sum = 0;
  for (int cta = 0; cta < count; ++cta) sum += values[cta];
  return sum;
}

}  // namespace dsa
