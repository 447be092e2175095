// The producer of bf16 keys: gathers blocks of them into shared memory.
#pragma once

#include "../device/cp_async.cuh"
#include "../device/mla_record.cuh"
#include "selection.cuh"
#include "shared.cuh"

namespace dsa::prefill {

// Where rows of keys begin: contiguous ones, or those of a paged cache. 32 bits hold the stride in
// bytes of aligned rows, so that an address is one instruction.
template <bool aligned>
struct ContiguousRows {
  using Stride = std::conditional_t<aligned, uint32_t, int64_t>;
  const uint8_t* base;  // of index 0
  Stride stride;

  __device__ __forceinline__ ContiguousRows(const SparseMlaPrefillArgs& a, int64_t query)
      : stride(static_cast<Stride>(a.kv_stride * 2)) {
    const int64_t start = a.kv_start == nullptr ? 0 : a.kv_start[query];
    base = static_cast<const uint8_t*>(a.kv) + start * a.kv_stride * 2;
  }
  __device__ __forceinline__ const uint8_t* operator()(uint32_t index) const {
    return base + uint64_t{index} * stride;
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
template <class S, class Rows, bool aligned>
struct Gather {
  static constexpr int kRows = 4;

  S& s;
  const Selection& selection;
  const Rows rows;
  const int first_row, chunk;
  uint32_t entries[kRows];
  const uint8_t* from[kRows];
  bool valid[kRows];

  __device__ __forceinline__ Gather(S& s, const Selection& selection, const SparseMlaPrefillArgs& a,
                                    int64_t query)
      : s(s),
        selection(selection),
        rows(a, query),
        first_row(warp_index() % 4 * 16 + lane_index() / 8 * kRows),
        chunk(lane_index() % 8) {}

  __device__ __forceinline__ void fetch_entries(int j) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) entries[r] = selection.entry(j * kBlock + first_row + r);
  }

  __device__ __forceinline__ void find() {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      valid[r] = selection.valid(entries[r]);
      const auto* none = reinterpret_cast<const uint8_t*>(no_record);
      from[r] = (valid[r] ? rows(entries[r]) : none) + 16 * chunk;
    }
  }

  // The block's bits: 4 of this thread's rows, 16 of the warp's.
  __device__ __forceinline__ void store_valid(int buffer) {
    uint32_t bits = 0;
#pragma unroll
    for (int r = 0; r < kRows; ++r) bits |= uint32_t{valid[r]} << r;
    bits <<= lane_index() / 8 * kRows;
    bits = __reduce_or_sync(~0u, bits);
    if (lane_index() == 0)
      reinterpret_cast<uint16_t*>(s.valid[buffer])[first_row / 16] = static_cast<uint16_t>(bits);
  }

  template <Half half>
  __device__ __forceinline__ void copy(int buffer) {
    // Copies arrive for themselves alone. This is for what the warp stored, and for what was read
    // of the buffer before.
    if (lane_index() == 0) mbarrier_arrive(s.full[buffer][half]);
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll(aligned ? S::kTiles : 1)
      for (int t = S::begin_of(half); t < S::end_of(half); ++t) {
        bf16* to = chunk_of(s.keys[buffer][t], first_row + r, chunk);
        if constexpr (aligned)
          cp_async_16(to, from[r] + t * 128);
        else
          *reinterpret_cast<uint4*>(to) = load_16<false, 4>(from[r] + t * 128);
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
    copy<kFirst>(buffer);
    mbarrier_wait(s.empty[buffer][kSecond], parity);
    copy<kSecond>(buffer);
  }

  __device__ __forceinline__ void run(int blocks) {
    fetch_entries(0);
    for (int j = 0; j < blocks; j += 2) {
      step<0>(j);
      if (j + 1 < blocks) step<1>(j + 1);
    }
  }
};

}  // namespace dsa::prefill
