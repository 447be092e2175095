// The producer of fp8 keys: gathers blocks of records, dequantised to bf16, into shared memory.
#pragma once

#include <algorithm>

#include "../device/cp_async.cuh"
#include "../device/mla_record.cuh"
#include "selection.cuh"
#include "shared.cuh"

namespace dsa::prefill {

// The scale of the 64 dims of `tile`, of a record that begins anywhere.
__device__ __forceinline__ float load_scale(Record<V32> record, int tile) {
  const uint8_t* at = record.data + V32::kScaleOffset + 4 * (tile / 2);
  uint32_t word = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) word |= uint32_t{__ldg(at + i)} << 8 * i;
  return __uint_as_float(word);
}

__device__ __forceinline__ float load_scale(Record<V4> record, int tile) {
  return ue8m0_to_float(__ldg(record.scales + tile));
}

// A thread's part of a block: of 2 rows, 32 apart, every fourth 16-byte chunk. So 8 lanes store to
// 8 rows of a tile, which lie in different banks, and 4 lanes read 64 bytes of a record.
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
      if constexpr (aligned) scales[r].template load<true>(records[r].data, records[r].scales);
    }
  }

  // The tiles of a half that are codes. A thread has one chunk of each row and tile, which becomes
  // two.
  template <Half half>
  struct Codes {
    static constexpr int kBegin = S::begin_of(half);
    static constexpr int kTiles = std::min(kCodeTiles, S::end_of(half)) - kBegin;
    uint4 chunk[kRows][kTiles];
  };

  __device__ __forceinline__ uint4* place(Tile& tile, int r, int chunk) const {
    return reinterpret_cast<uint4*>(chunk_of(tile, row + 32 * r, chunk));
  }

  template <bool bf16_scale>
  __device__ __forceinline__ void store_chunk(Tile& tile, int r, uint4 codes, float scale) const {
    *place(tile, r, 2 * quarter) = dequantize<bf16_scale>(codes.x, codes.y, scale);
    *place(tile, r, 2 * quarter + 1) = dequantize<bf16_scale>(codes.z, codes.w, scale);
  }

  // Row by row: the compiler would unpack the codes of both at once, and has no registers for that.
  template <Half half, bool bf16_scales>
  __device__ __forceinline__ void store(Tile* tiles, const Codes<half>& codes) const {
    constexpr int kTiles = Codes<half>::kTiles;
    Scales<Format> scale = scales[0];
    uint4 chunk[kTiles];
#pragma unroll
    for (int t = 0; t < kTiles; ++t) chunk[t] = codes.chunk[0][t];
#pragma unroll 1
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const int tile = Codes<half>::kBegin + t;
        store_chunk<bf16_scales>(tiles[tile], r, chunk[t],
                                 scale.of_tile(DSA_FAULT == 303 ? 0 : tile));
        chunk[t] = codes.chunk[1][t];
      }
      scale = scales[1];
    }
  }

  // Codes are on their way while the buffer is waited for. RoPE dims are copied beside.
  template <Half half>
  __device__ __forceinline__ void copy(int buffer, uint32_t parity) {
    Codes<half> codes;
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int t = 0; t < codes.kTiles; ++t)
        codes.chunk[r][t] =
            load_16<true>(records[r].data + kTileDims * (codes.kBegin + t) + 16 * quarter);
    mbarrier_wait(s.empty[buffer][half], parity);
    if (half == kRight)
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          cp_async_16(place(s.keys[buffer][S::kTiles - 1], r, quarter + 4 * i),
                      records[r].data + Format::kRopeOffset + 64 * i + 16 * quarter);
    if (__all_sync(~0u, scales[0].are_bf16() && scales[1].are_bf16()))
      store<half, true>(s.keys[buffer], codes);
    else
      store<half, false>(s.keys[buffer], codes);
  }

  // The same of records that begin anywhere, byte by byte.
  template <Half half>
  __device__ __forceinline__ void copy_unaligned(int buffer, uint32_t parity) {
    mbarrier_wait(s.empty[buffer][half], parity);
#pragma unroll 1
    for (int k = S::begin_of(half) * kRows; k < S::end_of(half) * kRows; ++k) {
      const int r = k % kRows, t = k / kRows;
      const Record<Format> record = {r == 0 ? records[0].data : records[1].data,
                                     r == 0 ? records[0].scales : records[1].scales};
      Tile& tile = s.keys[buffer][t];
      if (t < kCodeTiles) {
        const uint4 codes = load_16<false>(record.data + kTileDims * t + 16 * quarter);
        store_chunk<false>(tile, r, codes, load_scale(record, t));
      } else {
#pragma unroll 1
        for (int chunk = quarter; chunk < 8; chunk += 4)
          *place(tile, r, chunk) = load_16<false>(record.data + Format::kRopeOffset + 16 * chunk);
      }
    }
  }

  template <Half half>
  __device__ __forceinline__ void fill(int buffer, uint32_t parity) {
    if constexpr (aligned)
      copy<half>(buffer, parity);
    else
      copy_unaligned<half>(buffer, parity);
    if (half == kRight) cp_async_mbarrier_arrive(s.full[buffer][half]);
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
    fill<first_half(buffer)>(buffer, parity);
    fill<first_half(buffer ^ 1)>(buffer, parity);
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
