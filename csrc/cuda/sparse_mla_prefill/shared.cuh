// Shared memory and barriers of a CTA of sparse_mla_prefill.
#pragma once

#include <cfloat>

#include "../device/common.cuh"
#include "../device/mbarrier.cuh"
#include "kernel.h"

namespace dsa::prefill {

constexpr int kHeads = kPrefillHeads, kBlock = kPrefillBlock, kThreads = kPrefillThreads;
constexpr int kTileDims = 64;  // a tile is 64 rows of 128 bytes, swizzled as tensor copies do
constexpr int kHalfTiles = kValueDim / kTileDims / 2;
constexpr int kMathThreads = 2 * kWarpgroup;

enum Half { kLeft, kRight };  // dims [0, 256) of a key; the rest
enum NamedBarrier {
  kWeights = 1 /* of even blocks; of odd ones */,
  kMath = 3,
  kStaged /* and 5 */
};

using Tile = bf16[kBlock][kTileDims];

// The last tiles of q, `held` of them, move on to registers.
template <int d_qk, int held>
struct Shared {
  static constexpr int kTiles = d_qk / kTileDims, kHeld = held, kStayingTiles = kTiles - held;
  // Without room for both tiles of weights, those of an even block take the place of its RoPE dims,
  // once it has been scored.
  static constexpr bool kBorrows = kStayingTiles + 2 * kTiles + 2 > kPrefillTiles;
  // Behind q: weights [heads][keys] of an odd block, of an even one. In the end 8 tiles of output.
  Tile q[kStayingTiles + (kBorrows ? 1 : 2)];
  Tile keys[2][kTiles];     // block j is in keys[j % 2]
  float maxima[2][kHeads];  // that weights are relative to, times log2 e; of block j in [j % 2]
  float sums[2][kHeads];    // of the weights that each warpgroup has made
  float tops[2][kHeads];    // the largest products q . k that each has seen
  uint8_t valid[2][8];      // bit i of byte b: key 8 b + i of the block
  uint64_t full[2][2], empty[2][2];  // [block % 2][Half]

  static constexpr int begin_of(Half half) { return half == kLeft ? 0 : kHalfTiles; }
  static constexpr int end_of(Half half) { return half == kLeft ? kHalfTiles : kTiles; }

  __device__ Tile& weights(int group) {
    return kBorrows && group == 0 ? keys[0][kTiles - 1] : q[kStayingTiles + 1 - group];
  }
};

// 16 bytes of a row.
__device__ __forceinline__ bf16* chunk_of(Tile& tile, int row, int chunk) {
  return &tile[row][(chunk ^ row % 8) * 8];
}

// The half of an even block's buffer that is free first, and loaded and scored first; of an odd
// block's it is the other one.
__device__ constexpr Half first_half(int block) {
  return block % 2 == 0 ? kLeft : kRight;
}

}  // namespace dsa::prefill
