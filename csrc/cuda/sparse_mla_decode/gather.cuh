// The producer: gathers blocks of keys into shared memory, as bf16.
#pragma once

#include "../device/cp_async.cuh"
#include "../device/mla_record.cuh"
#include "shared.cuh"

namespace dsa::decode {

// A thread's part of fp8 blocks: of one row in each half, every fourth chunk of 16 bytes. So 8
// lanes store to 8 rows of a tile, which lie in different banks, and 4 lanes read 64 bytes of a
// record. The CTAs of a pair gather a half each and store it to both.
template <class Format, bool aligned, bool paired = false>
struct Fp8Gather {
  static constexpr int kCodeTiles = Format::kNopeDim / kTileDims;
  static constexpr int kRightTiles = kCodeTiles - kHalfTiles;
  static constexpr int kLeftArrivals = kWarpgroup, kRightArrivals = kWarpgroup;
  static constexpr int kCtas = paired ? 2 : 1;  // that gather a block
  static constexpr int kRows = 2 / kCtas;       // of a thread's two that it gathers
  static constexpr bool kReadersFence = paired;

  const SparseMlaDecodeArgs& args;
  const Selection& selection;
  int first_row, quarter;
  uint32_t to_peer;  // from an address of shared memory to the other CTA's
  int32_t slot;
  Record<Format> records[kRows];
  bool valid[2];
  Scales<Format> scales[kRows];

  __device__ __forceinline__ Fp8Gather(const SparseMlaDecodeArgs& args, const Selection& selection)
      : args(args), selection(selection) {
    first_row = warp_index() % 4 * 8 + lane_index() % 8;
    if constexpr (paired) first_row += member_of_pair() * 32;
    quarter = lane_index() / 8;
    fetch_slot(0);
  }

  __device__ __forceinline__ int row(int r) const { return first_row ^ 32 * r; }

  // One of the thread's two; eight lanes away another thread has the other.
  __device__ __forceinline__ void fetch_slot(int j) { slot = selection.slot(j, row(quarter % 2)); }

  // From the slots of block j to its records.
  __device__ __forceinline__ void find(int j) {
    const PagedCache& cache = args.scopes[selection.scope(j)].cache;
    const uint32_t other = __shfl_xor_sync(~0u, slot, 8);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t of_row = quarter % 2 == r ? slot : other;
      valid[r] = of_row < cache.capacity;
      if (r < kRows) records[r] = find_record<Format>(cache, of_row, valid[r]);
    }
  }

  template <int tiles>
  __device__ __forceinline__ void load_codes(uint4 (&codes)[kRows][tiles], int first_tile) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int t = 0; t < tiles; ++t)
        codes[r][t] = load_16<aligned>(records[r].data + 64 * (first_tile + t) + 16 * quarter);
  }

  __device__ __forceinline__ void load_scales() {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      scales[r].template load<aligned>(records[r].data, records[r].scales);
  }

  __device__ __forceinline__ void load_rope(uint4 (&rope)[kRows][2]) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int c = 0; c < 2; ++c)
        rope[r][c] =
            load_16<aligned>(records[r].data + Format::kRopeOffset + 64 * c + 16 * quarter);
  }

  // Also to the other CTA of a pair, whose `full` counts the bytes.
  __device__ __forceinline__ void store(bf16* to, uint4 value, uint64_t& full) const {
    *reinterpret_cast<uint4*>(to) = value;
    if constexpr (paired)
      remote_store_async(shared_address(to) + to_peer, value, shared_address(&full) + to_peer);
  }

  template <int tiles>
  __device__ __forceinline__ void store_codes(Key& key, uint64_t& full,
                                              const uint4 (&codes)[kRows][tiles],
                                              const Scales<Format> (&scales)[kRows],
                                              int first_tile) const {
    if (__all_sync(~0u, scales[0].are_bf16() && scales[kRows - 1].are_bf16()))
      store_values<true>(key, full, codes, scales, first_tile);
    else
      store_values<false>(key, full, codes, scales, first_tile);
  }

  template <bool bf16_scales, int tiles>
  __device__ __forceinline__ void store_values(Key& key, uint64_t& full,
                                               const uint4 (&codes)[kRows][tiles],
                                               const Scales<Format> (&scales)[kRows],
                                               int first_tile) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int t = 0; t < tiles; ++t) {
        const float scale = scales[r].of_tile(first_tile + t);
        const uint4 c = codes[r][t];
        Tile& tile = key.values[first_tile + t];
        store(chunk_of(tile, row(r), 2 * quarter), dequantize<bf16_scales>(c.x, c.y, scale), full);
        store(chunk_of(tile, row(r), 2 * quarter + 1), dequantize<bf16_scales>(c.z, c.w, scale),
              full);
      }
  }

  __device__ __forceinline__ void store_rope(Key& key, uint64_t& full,
                                             const uint4 (&rope)[kRows][2]) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int c = 0; c < 2; ++c)
        store(chunk_of(key.tile(kCodeTiles), row(r), quarter + 4 * c), rope[r][c], full);
  }

  __device__ __forceinline__ void store_valid(uint8_t (&bytes)[8]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t lanes = __ballot_sync(~0u, valid[DSA_FAULT == 406 && paired ? r ^ 1 : r]);
      if (lane_index() == 0) bytes[row(r) / 8] = static_cast<uint8_t>(lanes);
    }
  }

  template <int d_qk>
  __device__ __forceinline__ void run(Shared<d_qk>& s) {
    uint4 left[kRows][kHalfTiles], right[kRows][kRightTiles], rope[kRows][2];
    if constexpr (paired) to_peer = remote_address(&s, peer_of_pair()) - shared_address(&s);
    begin(0, left);
    for (int j = 0; j < selection.count; ++j) {
      const int buffer = j % 2;
      const uint32_t parity = j / 2 % 2 ^ 1;
      Key& key = s.keys[buffer];
      fetch_slot(j + 1);
      load_codes(right, kHalfTiles);
      mbarrier_wait(s.empty[buffer][kLeft], parity);
      store_codes(key, s.full[buffer][kLeft], left, scales, 0);
      store_valid(s.valid[buffer]);
      publish<kHalfTiles>(s.full[buffer][kLeft]);

      load_rope(rope);
      Scales<Format> right_scales[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) right_scales[r] = scales[r];
      if constexpr (aligned) begin(j + 1, left);  // on its way while the other half is stored
      mbarrier_wait(s.empty[buffer][kRight], parity);
      store_codes(key, s.full[buffer][kRight], right, right_scales, kHalfTiles);
      store_rope(key, s.full[buffer][kRight], rope);
      publish<kRightTiles + 1>(s.full[buffer][kRight]);
      if constexpr (!aligned) begin(j + 1, left);
    }
  }

  // Block j, whose slots have been fetched, if there is one.
  __device__ __forceinline__ void begin(int j, uint4 (&left)[kRows][kHalfTiles]) {
    if (j >= selection.count) return;
    find(j);
    load_scales();
    load_codes(left, 0);
  }

  // This thread's part of `tiles`; the other CTA's, a half of each, is counted in bytes.
  template <int tiles>
  static __device__ __forceinline__ void publish(uint64_t& barrier) {
    if constexpr (!kReadersFence) fence_async_proxy();
    if (paired && threadIdx.x % kWarpgroup == 0)
      mbarrier_arrive_expect_tx(barrier, tiles * sizeof(Tile) / 2);
    else
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
  static constexpr int kCtas = 1;
  static constexpr bool kReadersFence = aligned;

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
