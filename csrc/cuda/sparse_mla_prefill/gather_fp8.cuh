// The producer of fp8 keys: gathers blocks of records, dequantised to bf16, into shared memory.
#pragma once

#include <algorithm>

#include "../device/mla_record.cuh"
#include "selection.cuh"
#include "shared.cuh"

namespace dsa::prefill {

// A thread's part of a block: of 2 rows, 32 apart, every fourth 16-byte chunk. So 8 lanes store to 8
// rows of a tile, which lie in different banks, and 4 lanes read 64 bytes of a record.
template <class S, class Format, bool aligned>
struct Fp8Gather {
  static constexpr int kCodeTiles = Format::kNopeDim / kTileDims;
  static constexpr int kRows = 2;

  S& s;
  const Selection& selection;
  const PagedCache& cache;
  const int row, quarter;
  uint32_t slots[kRows];
  Record<Format> records[kRows];
  bool valid[kRows];
  Scales<Format> scales[kRows];

  __device__ __forceinline__ Fp8Gather(S& s, const Selection& selection,
                                       const SparseMlaPrefillArgs& a)
      : s(s),
        selection(selection),
        cache(a.cache),
        row(warp_index() % 4 * 8 + lane_index() % 8),
        quarter(lane_index() / 8) {}

  __device__ __forceinline__ void fetch_slots(int j) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) slots[r] = selection.entry(j * kBlock + row + 32 * r);
  }

  __device__ __forceinline__ void find() {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      valid[r] = selection.valid(slots[r]);
      records[r] = find_record<Format>(cache, slots[r], valid[r]);
      scales[r].template load<aligned>(records[r].data, records[r].scales);
    }
  }

  // A thread's chunks of a half: of each row and tile of codes one, and of RoPE dims two.
  template <Half half>
  struct Chunks {
    static constexpr int kBegin = S::begin_of(half);
    static constexpr int kTiles = std::min(kCodeTiles, S::end_of(half)) - kBegin;
    static constexpr int kOfRow = kTiles + (half == kRight ? 2 : 0);
    uint4 bytes[kRows][kOfRow];
  };

  template <Half half>
  __device__ __forceinline__ uint4 load_chunk(int r, int i) const {
    using C = Chunks<half>;
    const int at = i < C::kTiles ? 64 * (C::kBegin + i) : Format::kRopeOffset + 64 * (i - C::kTiles);
    return load_16<aligned>(records[r].data + at + 16 * quarter);
  }

  template <Half half, bool bf16_scales>
  __device__ __forceinline__ void store_chunk(Tile* tiles, int r, int i, uint4 bytes) const {
    using C = Chunks<half>;
    const auto place = [&](int tile, int chunk) {
      return reinterpret_cast<uint4*>(chunk_of(tiles[tile], row + 32 * r, chunk));
    };
    if (i < C::kTiles) {
      const int tile = C::kBegin + i;
      const float scale = scales[r].of_tile(DSA_FAULT == 303 ? 0 : tile);
      *place(tile, 2 * quarter) = dequantize<bf16_scales>(bytes.x, bytes.y, scale);
      *place(tile, 2 * quarter + 1) = dequantize<bf16_scales>(bytes.z, bytes.w, scale);
    } else {
      *place(S::kTiles - 1, quarter + 4 * (i - C::kTiles)) = bytes;
    }
  }

  template <Half half, bool bf16_scales>
  __device__ __forceinline__ void store(Tile* tiles, const Chunks<half>& c) const {
#pragma unroll
    for (int k = kRows * c.kOfRow - 1; k >= 0; --k) {  // what needs no arithmetic first
      const int r = k % kRows, i = k / kRows;
      store_chunk<half, bf16_scales>(tiles, r, i,
                                     aligned ? c.bytes[r][i] : load_chunk<half>(r, i));
    }
  }

  // Aligned chunks are on their way while the buffer is waited for.
  template <Half half>
  __device__ __forceinline__ void copy(int buffer, uint32_t parity) {
    using C = Chunks<half>;
    C c;
    if constexpr (aligned)
#pragma unroll
      for (int k = 0; k < kRows * C::kOfRow; ++k)
        c.bytes[k % kRows][k / kRows] = load_chunk<half>(k % kRows, k / kRows);
    mbarrier_wait(s.empty[buffer][half], parity);
    if (__all_sync(~0u, scales[0].are_bf16() && scales[1].are_bf16()))
      store<half, true>(s.keys[buffer], c);
    else
      store<half, false>(s.keys[buffer], c);
    if (half == first_half(buffer)) store_valid(s.valid[buffer]);
    fence_async_proxy();
    mbarrier_arrive(s.full[buffer][half]);
  }

  __device__ __forceinline__ void store_valid(uint8_t (&bytes)[8]) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const uint32_t lanes = __ballot_sync(~0u, valid[r]);
      if (lane_index() == 0) bytes[4 * r + row / 8] = static_cast<uint8_t>(lanes);
    }
  }

  template <int buffer>
  __device__ __forceinline__ void step(int j) {
    const uint32_t parity = j / 2 % 2 ^ 1;
    find();
    fetch_slots(j + 1);
    copy<first_half(buffer)>(buffer, parity);
    copy<first_half(buffer ^ 1)>(buffer, parity);
  }

  __device__ __forceinline__ void run(int blocks) {
    fetch_slots(0);
    for (int j = 0; j < blocks; j += 2) {
      step<0>(j);
      if (j + 1 < blocks) step<1>(j + 1);
    }
  }
};

}  // namespace dsa::prefill
