// The producer of bf16 keys: gathers blocks of them into shared memory.
#pragma once

#include "../device/cp_async.cuh"
#include "../device/mla_record.cuh"
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

// Where rows of keys begin: contiguous ones, or those of a paged cache.
template <int d_qk>
struct ContiguousRows {
  const uint8_t* base;  // of index 0
  int64_t stride;

  __device__ __forceinline__ ContiguousRows(const SparseMlaPrefillArgs& a, int64_t query)
      : stride(a.kv_stride * 2) {
    const int64_t start = a.kv_start == nullptr ? 0 : a.kv_start[query];
    base = static_cast<const uint8_t*>(a.kv) + start * stride;
  }
  __device__ __forceinline__ const uint8_t* operator()(uint32_t index) const {
    return base + index * stride;
  }
};

template <int d_qk>
struct PagedRows {
  const PagedCache& cache;

  __device__ __forceinline__ PagedRows(const SparseMlaPrefillArgs& a, int64_t) : cache(a.cache) {}
  __device__ __forceinline__ const uint8_t* operator()(uint32_t index) const {
    const Slot at = find_slot(cache, index);
    return at.page + uint64_t{at.token} * (d_qk * 2);
  }
};

// A thread's part of a block: of 4 successive rows, one 16-byte chunk of each tile, so that 8 lanes
// copy 128 bytes of a key.
template <int d_qk, template <int> class Rows, bool aligned>
struct Gather {
  using S = Shared<d_qk>;
  static constexpr int kRegisters = 64, kMathRegisters = 224;
  static constexpr int kRows = 4;
  // Copies arrive for themselves alone, so what warps store by threads has an arrival of its own.
  static constexpr int kValidArrivals = 4;

  S& s;
  const Selection& selection;
  const Rows<d_qk> rows;
  const int first_row, chunk;
  uint32_t entries[kRows];
  const uint8_t* from[kRows];
  bool valid[kRows];

  __device__ __forceinline__ Gather(S& s, const Selection& selection,
                                    const SparseMlaPrefillArgs& a, int64_t query)
      : s(s),
        selection(selection),
        rows(a, query),
        first_row(warp_index() % 4 * 16 + lane_index() / 8 * kRows),
        chunk(lane_index() % 8) {
    fetch_entries(0);
  }

  __device__ __forceinline__ void fetch_entries(int j) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) entries[r] = selection.entry(j * kBlock + first_row + r);
  }

  __device__ __forceinline__ void find() {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      valid[r] = selection.valid(entries[r]);
      from[r] = rows(valid[r] ? entries[r] : selection.first) + 16 * chunk;
    }
  }

  // The block's bits: 4 of this thread's rows, 16 of the warp's.
  __device__ __forceinline__ void store_valid(int buffer) {
    uint32_t bits = 0;
#pragma unroll
    for (int r = 0; r < kRows; ++r) bits |= uint32_t{valid[r]} << r;
    bits <<= lane_index() / 8 * kRows;
    bits = __reduce_or_sync(~0u, bits);
    if (lane_index() == 0) {
      reinterpret_cast<uint16_t*>(s.valid[buffer])[first_row / 16] = static_cast<uint16_t>(bits);
    }
  }

  template <Half half>
  __device__ __forceinline__ void copy(int buffer) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int t = S::begin_of(half); t < S::end_of(half); ++t) {
        bf16* to = chunk_of(s.keys[buffer][t], first_row + r, chunk);
        if constexpr (aligned)
          cp_async_16(to, from[r] + t * 128, valid[r]);
        else
          *reinterpret_cast<uint4*>(to) = load_16<false>(from[r] + t * 128, valid[r]);
      }
    if constexpr (aligned) {
      cp_async_mbarrier_arrive(s.full[buffer][half]);
    } else {
      fence_async_proxy();
      mbarrier_arrive(s.full[buffer][half]);
    }
  }

  template <int buffer>
  __device__ __forceinline__ void step(int j) {
    constexpr Half kFirst = first_half(buffer), kSecond = first_half(buffer ^ 1);
    const uint32_t parity = j / 2 % 2 ^ 1;
    find();
    fetch_entries(j + 1);
    mbarrier_wait(s.empty[buffer][kFirst], parity);
    store_valid(buffer);
    if (lane_index() == 0) mbarrier_arrive(s.full[buffer][kFirst]);
    copy<kFirst>(buffer);
    mbarrier_wait(s.empty[buffer][kSecond], parity);
    copy<kSecond>(buffer);
  }

  __device__ __forceinline__ void run(int blocks) {
    for (int j = 0; j < blocks; j += 2) {
      step<0>(j);
      if (j + 1 < blocks) step<1>(j + 1);
    }
  }
};

}  // namespace dsa::prefill
