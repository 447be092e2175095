// The producer: gathers blocks of keys into shared memory, as bf16.
#pragma once

#include "../device/cp_async.cuh"
#include "../device/mla_record.cuh"
#include "shared.cuh"

namespace dsa::decode {

// A thread's part of fp8 blocks: of rows `row` and `row` + 32, every fourth chunk of 16 bytes. So 8
// lanes store to 8 rows of a tile, which lie in different banks, and 4 lanes read 64 bytes of a
// record.
template <class Format, bool aligned>
struct Fp8Gather {
  static constexpr int kCodeTiles = Format::kNopeDim / kTileDims;
  static constexpr int kRightTiles = kCodeTiles - kHalfTiles;
  static constexpr int kLeftArrivals = kWarpgroup, kRightArrivals = kWarpgroup;
  static constexpr bool kAsyncCopies = false;

  const SparseMlaDecodeArgs& args;
  const Selection& selection;
  int row, quarter;
  int32_t slots[2];
  Record<Format> records[2];
  bool valid[2];
  Scales<Format> scales[2];

  __device__ __forceinline__ Fp8Gather(const SparseMlaDecodeArgs& args, const Selection& selection)
      : args(args), selection(selection) {
    row = warp_index() % 4 * 8 + lane_index() % 8;
    quarter = lane_index() / 8;
    fetch_slots(0);
  }

  __device__ __forceinline__ void fetch_slots(int j) {
#pragma unroll
    for (int r = 0; r < 2; ++r) slots[r] = selection.slot(j, row + 32 * r);
  }

  // From the slots of block j to its records.
  __device__ __forceinline__ void find(int j) {
    const PagedCache& cache = args.scopes[selection.scope(j)].cache;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      valid[r] = static_cast<uint32_t>(slots[r]) < cache.capacity;
      records[r] = find_record<Format>(cache, slots[r], valid[r]);
    }
  }

  template <int tiles>
  __device__ __forceinline__ void load_codes(uint4 (&codes)[2][tiles], int first_tile) const {
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int t = 0; t < tiles; ++t)
        codes[r][t] = load_16<aligned>(records[r].data + 64 * (first_tile + t) + 16 * quarter);
  }

  __device__ __forceinline__ void load_scales() {
#pragma unroll
    for (int r = 0; r < 2; ++r)
      scales[r].template load<aligned>(records[r].data, records[r].scales);
  }

  __device__ __forceinline__ void load_rope(uint4 (&rope)[2][2]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int c = 0; c < 2; ++c)
        rope[r][c] =
            load_16<aligned>(records[r].data + Format::kRopeOffset + 64 * c + 16 * quarter);
  }

  template <int tiles>
  __device__ __forceinline__ void store_codes(Key& key, const uint4 (&codes)[2][tiles],
                                              const Scales<Format> (&scales)[2],
                                              int first_tile) const {
    if (__all_sync(~0u, scales[0].are_bf16() && scales[1].are_bf16()))
      store_values<true>(key, codes, scales, first_tile);
    else
      store_values<false>(key, codes, scales, first_tile);
  }

  template <bool bf16_scales, int tiles>
  __device__ __forceinline__ void store_values(Key& key, const uint4 (&codes)[2][tiles],
                                               const Scales<Format> (&scales)[2],
                                               int first_tile) const {
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int t = 0; t < tiles; ++t) {
        const float scale = scales[r].of_tile(first_tile + t);
        const uint4 c = codes[r][t];
        Tile& tile = key.values[first_tile + t];
        *reinterpret_cast<uint4*>(chunk_of(tile, row + 32 * r, 2 * quarter)) =
            dequantize<bf16_scales>(c.x, c.y, scale);
        *reinterpret_cast<uint4*>(chunk_of(tile, row + 32 * r, 2 * quarter + 1)) =
            dequantize<bf16_scales>(c.z, c.w, scale);
      }
  }

  __device__ __forceinline__ void store_rope(Key& key, const uint4 (&rope)[2][2]) const {
    Tile& tile = key.tile(kCodeTiles);
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int c = 0; c < 2; ++c)
        *reinterpret_cast<uint4*>(chunk_of(tile, row + 32 * r, quarter + 4 * c)) = rope[r][c];
  }

  __device__ __forceinline__ void store_valid(uint8_t (&bytes)[8]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t lanes = __ballot_sync(~0u, valid[r]);
      if (lane_index() == 0) bytes[4 * r + row / 8] = static_cast<uint8_t>(lanes);
    }
  }

  template <int d_qk>
  __device__ __forceinline__ void run(Shared<d_qk>& s) {
    uint4 left[2][kHalfTiles], right[2][kRightTiles], rope[2][2];
    begin(0, left);
    for (int j = 0; j < selection.count; ++j) {
      const int buffer = j % 2;
      const uint32_t parity = j / 2 % 2 ^ 1;
      Key& key = s.keys[buffer];
      fetch_slots(j + 1);
      load_codes(right, kHalfTiles);
      mbarrier_wait(s.empty[buffer][kLeft], parity);
      store_codes(key, left, scales, 0);
      store_valid(s.valid[buffer]);
      publish(s.full[buffer][kLeft]);

      load_rope(rope);
      const Scales<Format> right_scales[2] = {scales[0], scales[1]};
      if constexpr (aligned) begin(j + 1, left);  // on its way while the other half is stored
      mbarrier_wait(s.empty[buffer][kRight], parity);
      store_codes(key, right, right_scales, kHalfTiles);
      store_rope(key, rope);
      publish(s.full[buffer][kRight]);
      if constexpr (!aligned) begin(j + 1, left);
    }
  }

  // Block j, whose slots have been fetched, if there is one.
  __device__ __forceinline__ void begin(int j, uint4 (&left)[2][kHalfTiles]) {
    if (j >= selection.count) return;
    find(j);
    load_scales();
    load_codes(left, 0);
  }

  static __device__ __forceinline__ void publish(uint64_t& barrier) {
    fence_async_proxy();
    mbarrier_arrive(barrier);
  }
};

// A thread's part of bf16 blocks: of 4 rows, one chunk of each tile; 8 lanes copy 128 bytes of a
// record. Slots are fetched by the first 16 lanes of a warp, for its 16 rows.
template <int d_qk, bool aligned>
struct BFloat16Gather {
  static constexpr int kTiles = d_qk / kTileDims, kRows = 16, kRowsOfThread = 4;
  // Copies arrive for themselves alone. A thread of each warp arrives for what the warp has stored,
  // and for what it has waited for: that weights have been read, in whose place there will be
  // others.
  static constexpr int kLeftArrivals = kWarpgroup + 4, kRightArrivals = kWarpgroup + 4;
  static constexpr bool kAsyncCopies = aligned;

  const SparseMlaDecodeArgs& args;
  const Selection& selection;
  int first_row, chunk;
  int32_t slot;
  uint32_t valid_rows;
  const bf16* records[kRowsOfThread];

  __device__ __forceinline__ BFloat16Gather(const SparseMlaDecodeArgs& args,
                                            const Selection& selection)
      : args(args), selection(selection) {
    first_row = warp_index() % 4 * kRows;
    chunk = lane_index() % 8;
    fetch_slot(0);
  }

  __device__ __forceinline__ void fetch_slot(int j) {
    slot = selection.slot(j, first_row + lane_index() % kRows);
  }

  __device__ __forceinline__ void find(int j) {
    const PagedCache& cache = args.scopes[selection.scope(j)].cache;
    const bool valid = static_cast<uint32_t>(slot) < cache.capacity;
    valid_rows = __ballot_sync(~0u, valid) & 0xffff;
#pragma unroll
    for (int r = 0; r < kRowsOfThread; ++r) {
      const Slot at = find_slot(cache, __shfl_sync(~0u, slot, row(r)));
      const auto* record = reinterpret_cast<const bf16*>(at.page) + uint64_t{at.token} * d_qk;
      const auto* none = reinterpret_cast<const bf16*>(no_record);
      records[r] = (valid_rows >> row(r) & 1 ? record : none) + 8 * chunk;
    }
  }

  __device__ __forceinline__ int row(int r) const { return 4 * r + lane_index() / 8; }

  template <int first_tile, int tiles>
  __device__ __forceinline__ void copy(Key& key, uint64_t& full) const {
#pragma unroll
    for (int r = 0; r < kRowsOfThread; ++r)
#pragma unroll(aligned ? tiles : 1)
      for (int t = first_tile; t < first_tile + tiles; ++t) {
        bf16* to = chunk_of(key.tile(t), first_row + row(r), chunk);
        const bf16* from = records[r] + t * kTileDims;
        if constexpr (aligned)
          cp_async_16(to, from);
        else
          *reinterpret_cast<uint4*>(to) = load_16<false>(reinterpret_cast<const uint8_t*>(from));
      }
    if constexpr (aligned) {
      cp_async_mbarrier_arrive(full);
    } else {
      fence_async_proxy();
      mbarrier_arrive(full);
    }
  }

  __device__ __forceinline__ void run(Shared<d_qk>& s) {
    for (int j = 0; j < selection.count; ++j) {
      const int buffer = j % 2;
      const uint32_t parity = j / 2 % 2 ^ 1;
      find(j);
      fetch_slot(j + 1);
      mbarrier_wait(s.empty[buffer][kLeft], parity);
      if (lane_index() == 0) {
        *reinterpret_cast<uint16_t*>(&s.valid[buffer][first_row / 8]) =
            static_cast<uint16_t>(valid_rows);
        mbarrier_arrive(s.full[buffer][kLeft]);
      }
      copy<0, kHalfTiles>(s.keys[buffer], s.full[buffer][kLeft]);
      mbarrier_wait(s.empty[buffer][kRight], parity);
      if (lane_index() == 0) mbarrier_arrive(s.full[buffer][kRight]);
      copy<kHalfTiles, kTiles - kHalfTiles>(s.keys[buffer], s.full[buffer][kRight]);
    }
  }
};

}  // namespace dsa::decode
