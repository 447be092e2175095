// The selected keys of a query.
#pragma once

#include "shared.cuh"

namespace dsa::prefill {

// The indices of a query, and which of them mean keys: those in [first, first + keys).
struct Selection {
  const int32_t* indices;
  int length;
  uint32_t first, keys;

  __device__ __forceinline__ Selection(const SparseMlaPrefillArgs& a, int64_t query) {
    indices = a.indices + query * a.indices_stride;
    length = a.topk_length == nullptr ? a.topk : min(max(a.topk_length[query], 0), a.topk);
    const int64_t start = a.kv_start == nullptr ? 0 : a.kv_start[query];
    const int64_t capacity = a.kv == nullptr ? a.cache.capacity : a.num_kv;
    const int64_t begin = start < 0 ? -start : 0;
    const int64_t end = min(capacity - start, int64_t{INT32_MAX} + 1);
    first = static_cast<uint32_t>(begin);
    keys = begin < end ? static_cast<uint32_t>(end - begin) : 0;
    if (keys == 0) length = 0;
  }

  __device__ __forceinline__ int blocks() const {
    return DSA_FAULT == 305 ? length / kBlock : ceil_div(length, kBlock);
  }

  // Entry `at`, or one that means no key where the row has ended.
  __device__ __forceinline__ uint32_t entry(int at) const {
    return at < length ? static_cast<uint32_t>(__ldg(indices + at)) : ~0u;
  }

  __device__ __forceinline__ bool valid(uint32_t index) const { return index - first < keys; }
};

}  // namespace dsa::prefill
