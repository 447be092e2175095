// Indexer scores of blocks of query tokens against tiles of 64 keys, on sm_90a: what mqa_logits and
// paged_mqa_logits share. docs/indexer.md has the tiling picture and the budgets.
//
//   warpgroup 0   warp 0: hands out blocks, loads queries and keys.  warps 1-3: columns without a
//   key warpgroup 1   even tiles  D [64 keys x (queries x heads)] = K [64 x dim] Q^T warpgroup 2
//   odd tiles
//
// A Problem says which rows a block has, which keys each row scores, where the operands come from,
// and where a score goes.
#pragma once

#include <cuda_fp8.h>
#include <math_constants.h>

#include <type_traits>

#include "indexer_score.h"
#include "math.cuh"
#include "mbarrier.cuh"
#include "scan.cuh"
#include "tma.cuh"
#include "wgmma.cuh"

namespace dsa {

using fp8 = __nv_fp8_e4m3;

struct RowRange {
  int start, end;  // keys

  __device__ bool has(int key) const { return key >= start && key < end; }
};

template <class Element_, int kHeads_, int kDim_, int kQueries_>
struct ScoreConfig {
  using Element = Element_;
  static constexpr int kHeads = kHeads_, kDim = kDim_, kQueries = kQueries_;
  static constexpr int kThreads = kScoreThreads;
  // Together what 384 threads of 168 registers have.
  static constexpr int kProducerRegisters = 40, kMathRegisters = 232;
  static constexpr int kKeys = kScoreKeys;
  static constexpr int kN = kQueries * kHeads;
  static constexpr int kRowBytes = kDim * sizeof(Element);
  // Rows of more than 128 bytes lie as subtiles side by side, each as wide as the swizzle.
  static constexpr int kSubtileBytes = kRowBytes < 128 ? kRowBytes : 128;
  static constexpr int kSubtiles = kRowBytes / kSubtileBytes;
  static constexpr int kSubtileElements = kSubtileBytes / sizeof(Element);
  static constexpr Swizzle kSwizzle = kSubtileBytes == 128 ? Swizzle::k128 : Swizzle::k64;
  static constexpr int kKeyBytes = kKeys * kRowBytes, kQueryBytes = kN * kRowBytes;
  static constexpr int kStages = score_stages(kRowBytes);
  static_assert(kN >= 8 && kN <= 256);
};

struct Block {
  int index, first_key, tiles;  // no tiles: there are no more blocks
};

// A CTA's part of all tiles, which follow each other block by block.
struct Share {
  int block, tile;  // the first
  int64_t tiles;
};

template <class C>
struct ScoreShared {
  static constexpr int kQuerySize = ceil_div(C::kQueryBytes, 1024) * 1024;
  alignas(1024) uint8_t q[2][kQuerySize];
  alignas(1024) uint8_t k[C::kStages][C::kKeyBytes];
  alignas(128) float scale[C::kStages][C::kKeys];
  alignas(16) float weights[2][C::kN];
  RowRange rows[2][C::kQueries];
  uint64_t exists[C::kStages];  // bit i: key i of the tile, where a Problem's keys may have holes
  Block block[2];
  uint64_t q_full[2], q_empty[2], k_full[C::kStages], k_empty[C::kStages], turn[2];
  Share share;
  int64_t warp_tiles[C::kThreads / kWarp];
};

template <class C>
__device__ ScoreShared<C>& score_shared() {
  static_assert(sizeof(ScoreShared<C>) <= score_shared_bytes(C::kQueries, C::kHeads, C::kRowBytes));
  extern __shared__ __align__(1024) uint8_t bytes[];
  return *reinterpret_cast<ScoreShared<C>*>(bytes);
}

template <class C>
__device__ void init_barriers(ScoreShared<C>& s) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) {
      mbarrier_init(s.q_full[i], 1);
      mbarrier_init(s.q_empty[i], 8);  // warps of both warpgroups
      mbarrier_init(s.turn[i], 4);
    }
    for (int i = 0; i < C::kStages; ++i) {
      mbarrier_init(s.k_full[i], 1);
      mbarrier_init(s.k_empty[i], 4);
    }
    fence_mbarrier_init();
  }
}

// Tiles that hold [start, end), the first of which begins on a 32-byte sector of logits.
__device__ inline int first_key_of(RowRange range) {
  return range.start & ~7;
}
__device__ inline int tiles_of(RowRange range) {
  return range.end > range.start ? ceil_div(range.end - first_key_of(range), 64) : 0;
}

// Every CTA gets the same number of tiles, to within one. All threads take part.
template <class C, class Problem>
__device__ void share_out(const Problem& problem, ScoreShared<C>& s) {
  const int blocks = problem.num_blocks(), each = ceil_div(blocks, C::kThreads);
  const int begin = min(static_cast<int>(threadIdx.x) * each, blocks);
  const int end = min(begin + each, blocks);
  int64_t mine = 0;
  for (int b = begin; b < end; ++b) mine += tiles_of(problem.block_range(b));

  const int lane = lane_index(), warp = threadIdx.x / kWarp;
  int64_t upto = warp_inclusive_sum(mine);
  if (lane == kWarp - 1) s.warp_tiles[warp] = upto;
  if (threadIdx.x == 0) s.share = {0, 0, 0};
  __syncthreads();
  int64_t total = 0;
  for (int w = 0; w < C::kThreads / kWarp; ++w) {
    if (w == warp) upto += total;
    total += s.warp_tiles[w];
  }
  const int64_t first = total * blockIdx.x / gridDim.x;
  const int64_t last = total * (blockIdx.x + 1) / gridDim.x;
  int64_t before = upto - mine;
  if (first >= before && first < upto && first < last) {
    int b = begin;
    for (;; ++b) {
      const int tiles = tiles_of(problem.block_range(b));
      if (first < before + tiles) break;
      before += tiles;
    }
    s.share = {b, static_cast<int>(first - before), last - first};
  }
  __syncthreads();
}

// Offset of 16-byte chunk `chunk` of row `row` in an operand, as a tensor copy would leave it.
template <class C>
__device__ inline int swizzled(int rows, int row, int chunk) {
  constexpr int kChunks = C::kSubtileBytes / 16;
  const int offset = row * C::kSubtileBytes + chunk % kChunks * 16;
  return chunk / kChunks * rows * C::kSubtileBytes + (offset ^ (offset >> 7 & (kChunks - 1)) << 4);
}

// A warp writes `rows` rows of an operand, of any alignment: what tensor copies can't load.
// row_at(row) is the row's first element, or null for zeros.
template <class C, class RowAt>
__device__ void copy_rows(uint8_t* to, int rows, RowAt row_at) {
  using Element = typename C::Element;
  using Unit = std::conditional_t<sizeof(Element) == 1, uint8_t, uint16_t>;
  constexpr int kPerChunk = 16 / sizeof(Unit), kChunksOfRow = C::kRowBytes / 16;
  for (int i = lane_index(); i < rows * kChunksOfRow; i += kWarp) {
    const int row = i / kChunksOfRow, chunk = i % kChunksOfRow;
    const Unit* from = reinterpret_cast<const Unit*>(row_at(row));
    alignas(16) Unit values[kPerChunk];
#pragma unroll
    for (int e = 0; e < kPerChunk; ++e) values[e] = from ? from[chunk * kPerChunk + e] : Unit{0};
    *reinterpret_cast<uint4*>(to + swizzled<C>(rows, row, chunk)) =
        *reinterpret_cast<const uint4*>(values);
  }
  fence_async_proxy();
}

// Union of the rows' ranges, from one lane per row.
template <class C>
__device__ RowRange union_of_rows(RowRange row) {
  if (row.start >= row.end) row = {INT32_MAX, 0};
  return {static_cast<int>(__reduce_min_sync(0xffffffff, row.start)),
          static_cast<int>(__reduce_max_sync(0xffffffff, row.end))};
}

template <class C, class Problem>
__device__ void produce(const Problem& problem, ScoreShared<C>& s) {
  const int lane = lane_index();
  RingPosition<2> q;
  RingPosition<C::kStages> k;
  typename Problem::LoadState state;
  int block = s.share.block, tile = s.share.tile;
  for (int64_t left = s.share.tiles; left > 0; ++block, tile = 0) {
    const RowRange row = lane < C::kQueries ? problem.row_range(block, lane) : RowRange{0, 0};
    const RowRange range = union_of_rows<C>(row);
    const int tiles = static_cast<int>(min(left, static_cast<int64_t>(tiles_of(range) - tile)));
    if (tiles == 0) continue;
    const int first_key = first_key_of(range) + tile * C::kKeys;
    mbarrier_wait(s.q_empty[q.stage], q.parity ^ 1);
    if (lane < C::kQueries) s.rows[q.stage][lane] = row;
    if (lane == 0) s.block[q.stage] = {block, first_key, tiles};
    for (int i = lane; i < C::kN; i += kWarp)
      s.weights[q.stage][i] = problem.weight(block, i / C::kHeads, i % C::kHeads);
    __syncwarp();
    problem.load_queries(s, q.stage, block);
    q.advance();
    for (int t = 0; t < tiles; ++t) {
      mbarrier_wait(s.k_empty[k.stage], k.parity ^ 1);
      problem.load_keys(s, k.stage, block, first_key + t * C::kKeys, state);
      k.advance();
    }
    left -= tiles;
  }
  mbarrier_wait(s.q_empty[q.stage], q.parity ^ 1);
  if (lane == 0) {
    s.block[q.stage].tiles = 0;
    mbarrier_arrive(s.q_full[q.stage]);
  }
}

template <class C>
__device__ uint64_t operand_descriptor(const uint8_t* rows) {
  return matrix_descriptor(rows, C::kSwizzle, 8 * C::kSubtileBytes);
}

template <class C>
__device__ void multiply(float (&d)[C::kN / 2], uint64_t k, uint64_t q) {
  constexpr int kStep = 32;  // bytes of a row
#pragma unroll
  for (int at = 0; at < C::kRowBytes; at += kStep) {
    const int subtile = at / C::kSubtileBytes, inside = at % C::kSubtileBytes;
    const uint64_t k_at = advance(k, subtile * C::kKeys * C::kSubtileBytes + inside);
    const uint64_t q_at = advance(q, subtile * C::kN * C::kSubtileBytes + inside);
    if constexpr (sizeof(typename C::Element) == 1)
      wgmma_e4m3<C::kN>(d, k_at, q_at, at > 0);
    else
      wgmma_bf16<C::kN>(d, k_at, q_at, at > 0);
  }
}

// A thread has, of each query, 2 rows (keys) x heads / 4 columns of D. v[2 q + h] is its part of
// the sum over heads of query q and row h.
template <class C>
__device__ void sum_heads(const float (&d)[C::kN / 2], const float (&w)[C::kN / 4],
                          float (&v)[2 * C::kQueries]) {
#pragma unroll
  for (int q = 0; q < C::kQueries; ++q)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < C::kHeads / 4; ++i) {
        const int j = q * (C::kHeads / 8) + i / 2, e = i % 2;
        const float dot = d[4 * j + 2 * h + e];
        sum = fmaf(DSA_FAULT == 101 ? dot : max_nan(dot, 0), w[2 * j + e], sum);
      }
      v[2 * q + h] = sum;
    }
}

// Adds up the four lanes of a quad. Instead of all sums in all lanes, each keeps half of them at
// each step: lane t of the quad ends with v[0 .. kept) = entries [first, first + kept) of the old
// v.
template <int n>
struct QuadSums {
  static constexpr int kKept = n >= 4 ? n / 4 : 1;

  __device__ static int first(int t) { return n >= 4 ? t * kKept : t / 2; }
  // Whether this lane is the one to store: with 2 entries two lanes have each.
  __device__ static bool owner(int t) { return n >= 4 || t % 2 == 0; }

  __device__ static void reduce(float (&v)[n]) {
    const int t = threadIdx.x % 4;
    half<n>(v, t & 2, 2);
    if constexpr (n >= 4)
      half<n / 2>(v, t & 1, 1);
    else
      v[0] += __shfl_xor_sync(0xffffffff, v[0], 1);
  }

 private:
  template <int m>
  __device__ static void half(float (&v)[n], bool upper, int distance) {
#pragma unroll
    for (int i = 0; i < m / 2; ++i) {
      const float keep = upper ? v[i + m / 2] : v[i], send = upper ? v[i] : v[i + m / 2];
      v[i] = keep + __shfl_xor_sync(0xffffffff, send, distance);
    }
  }
};

// Where a row's scores go: key k's is element first + k of the output.
struct RowOut {
  RowRange keys;
  int64_t first;
};

template <class C, class Problem>
__device__ void score_tiles(const Problem& problem, ScoreShared<C>& s, int group) {
  using Sums = QuadSums<2 * C::kQueries>;
  // Of few rows a lane keeps where they go; of many it looks it up for every tile.
  constexpr int kRowsKept = Sums::kKept <= 2 ? 1 : 0;
  const int lane = lane_index(), row = threadIdx.x % kWarpgroup / kWarp * 16 + lane / 4;
  const int first_entry = Sums::first(lane % 4);
  const uint64_t k_operand = operand_descriptor<C>(s.k[0]),
                 q_operand = operand_descriptor<C>(s.q[0]);
  RingPosition<2> q;
  int stage = group;
  uint32_t parity = 0, turn = group ^ 1;
  for (int done = 0;;) {  // tiles of earlier blocks
    mbarrier_wait(s.q_full[q.stage], q.parity);
    const Block block = s.block[q.stage];
    if (block.tiles == 0) break;
    const auto row_out = [&](int query) {
      const RowRange keys = s.rows[q.stage][query];
      return RowOut{keys, problem.first_of(block.index, query, keys)};
    };
    float w[C::kN / 4];
#pragma unroll
    for (int j = 0; j < C::kN / 8; ++j) {
      const float2 pair =
          *reinterpret_cast<const float2*>(&s.weights[q.stage][8 * j + lane % 4 * 2]);
      w[2 * j] = pair.x;
      w[2 * j + 1] = pair.y;
    }
    const RowOut kept = kRowsKept ? row_out(first_entry / 2) : RowOut{};
    const uint64_t queries = advance(q_operand, q.stage * ScoreShared<C>::kQuerySize);
    for (int tile = (done ^ group) & 1; tile < block.tiles; tile += 2) {
      mbarrier_wait(s.k_full[stage], parity);
      // One warpgroup's products at a time, so that the other's epilogue runs beside them.
      mbarrier_wait(s.turn[group], turn);
      turn ^= 1;
      float d[C::kN / 2];
      wgmma_fence();
      multiply<C>(d, advance(k_operand, stage * C::kKeyBytes), queries);
      wgmma_commit();
      if (lane == 0) mbarrier_arrive(s.turn[group ^ 1]);
      float scale[2] = {1, 1};
      if (problem.has_scale()) {
        scale[0] = s.scale[stage][row];
        scale[1] = s.scale[stage][row + (DSA_FAULT == 102 ? 0 : 8)];
      }
      bool exists[2] = {true, true};
      if constexpr (Problem::kHoles && DSA_FAULT != 152) {
        exists[0] = s.exists[stage] >> row & 1;
        exists[1] = s.exists[stage] >> (row + 8) & 1;
      }
      wgmma_wait<0>();
      pin(d);
      __syncwarp();
      if (lane == 0) mbarrier_arrive(s.k_empty[stage]);
      if (stage += 2; stage >= C::kStages) {
        stage -= C::kStages;
        parity ^= 1;
      }
      float v[2 * C::kQueries];
      sum_heads<C>(d, w, v);
      Sums::reduce(v);
#pragma unroll
      for (int i = 0; i < Sums::kKept; ++i) {
        const int entry = first_entry + i, upper = entry % 2;
        const int key = block.first_key + tile * C::kKeys + row + 8 * upper;
        const RowOut out = kRowsKept ? kept : row_out(entry / 2);
        const float logit = (upper ? scale[1] : scale[0]) * v[i];
        if (Sums::owner(lane % 4) && out.keys.has(key))
          problem.store(out.first + key, (upper ? exists[1] : exists[0]) ? logit : -CUDART_INF_F);
      }
    }
    done += block.tiles;
    __syncwarp();
    if (lane == 0) mbarrier_arrive(s.q_empty[q.stage]);
    q.advance();
  }
}

template <class C, class Problem>
__device__ void score(const Problem& problem, ScoreShared<C>& s) {
  init_barriers(s);
  share_out(problem, s);
  const int warpgroup = warp_index() / 4;
  if (warpgroup > 0) {
    increase_registers<C::kMathRegisters>();
    score_tiles(problem, s, warpgroup - 1);
  } else {
    decrease_registers<C::kProducerRegisters>();
    if (warp_index() == 0)
      produce(problem, s);
    else
      problem.fill(warp_index() - 1, 3);
  }
}

// A warp writes -inf to [from, to) of a row of float or bf16.
template <class Logit>
__device__ void fill_minus_infinity(Logit* row, int64_t from, int64_t to) {
  constexpr uint32_t kWord = sizeof(Logit) == 4 ? 0xff800000 : 0xff80ff80;
  constexpr int kPerVector = 16 / sizeof(Logit);
  const auto store = [&](int64_t i) {
    if constexpr (sizeof(Logit) == 4)
      row[i] = __uint_as_float(kWord);
    else
      reinterpret_cast<uint16_t*>(row)[i] = 0xff80;
  };
  const int64_t misaligned = reinterpret_cast<uintptr_t>(row + from) % 16 / sizeof(Logit);
  const int64_t first = min(from + (kPerVector - misaligned) % kPerVector, to);
  const int64_t vectors = max(to - first, int64_t{0}) / kPerVector;
  const int64_t last = first + vectors * kPerVector;
  const int lane = lane_index();
  if (from + lane < first) store(from + lane);
  for (int64_t v = lane; v < vectors; v += kWarp)
    reinterpret_cast<uint4*>(row + first)[v] = make_uint4(kWord, kWord, kWord, kWord);
  if (last + lane < to) store(last + lane);
}

}  // namespace dsa
