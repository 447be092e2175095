// Shared memory, barriers and the share of work of a CTA of sparse_mla_decode.
#pragma once

#include <cfloat>

#include "../device/cluster.cuh"
#include "../device/common.cuh"
#include "../device/mbarrier.cuh"
#include "kernel.h"

namespace dsa::decode {

constexpr int kHeads = kDecodeHeads, kBlock = kDecodeBlock, kThreads = kDecodeThreads;
constexpr int kTileDims = 64;  // a tile is 64 rows of 128 bytes, swizzled as tensor copies do
constexpr int kValueTiles = kValueDim / kTileDims, kHalfTiles = kValueTiles / 2;
constexpr int kMathThreads = 2 * kWarpgroup;
constexpr int kStagedRow = kValueDim + 8;  // floats; 8 more spread rows over the banks

enum Half { kLeft, kRight };  // dims [0, 256) of a key; the rest
// Each and the next: for warpgroups 0 and 1. Their block's weights are there, for the other; their
// threads have come to the same place.
enum NamedBarrier { kWeights = 1, kGroup = 3 };

using Tile = bf16[kBlock][kTileDims];

struct Key {
  Tile values[kValueTiles];
  // RoPE dims of d_qk = 576. Once the block has been scored, its weights [heads][keys].
  Tile last;

  __device__ __forceinline__ Tile& tile(int i) { return reinterpret_cast<Tile*>(this)[i]; }
};

template <int d_qk>
struct Shared {
  static constexpr int kTiles = d_qk / kTileDims;
  Tile q[kTiles];
  union {
    Key keys[2];                       // block j is in keys[j % 2]
    float staged[kHeads][kStagedRow];  // this CTA's part of the output, in the end
  };
  float maxima[2][kHeads];                  // scaled by log2 e; of block j in [j % 2]
  float sums[2][kHeads];                    // of the weights that each warpgroup has made
  float partial[2][4][kDecodeNarrowHeads];  // of a warp; where heads are columns
  uint8_t valid[2][8];                      // bit i of byte b: key 8 b + i of the block
  uint64_t full[2][2], empty[2][2];         // [block % 2][Half]
};
static_assert(sizeof(Shared<576>) == decode_shared_bytes(576));
static_assert(sizeof(Shared<512>) == decode_shared_bytes(512));

// Of the mbarriers: of the j-th block.
__device__ __forceinline__ uint32_t parity_of(int j) {
  return j / 2 % 2;
}

// CTAs 2 i and 2 i + 1 of a cluster are a pair where two groups of heads share keys.
__device__ __forceinline__ uint32_t member_of_pair() {
  return blockIdx.x % 2;
}

// The rank of the other one.
__device__ __forceinline__ uint32_t peer_of_pair() {
  return cluster_rank() ^ 1;
}

// A warp of warpgroup `group` has read the block in `buffer`, its left half for all: both groups
// multiply by values, and keys have been read before there are weights. Both CTAs of a pair store
// to the buffer.
template <bool paired, int d_qk>
__device__ __forceinline__ void release(Shared<d_qk>& s, int group, int buffer) {
  __syncwarp();
  if (lane_index() != 0) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (half == kLeft && group != 0) continue;
    mbarrier_arrive(s.empty[buffer][half]);
    if constexpr (paired)
      mbarrier_arrive_remote(remote_address(&s.empty[buffer][half], peer_of_pair()));
  }
}

__device__ __forceinline__ bf16* chunk_of(Tile& tile, int row, int chunk) {
  return &tile[row][(chunk ^ row % 8) * 8];
}

// The selections of a query token, and which blocks of them this CTA attends to. Those of the
// second scope follow those of the first; no block has keys of both.
struct Selection {
  const int32_t* indices[2];
  int lengths[2];
  int first_scope;  // blocks of the first scope
  int begin, count;

  __device__ __forceinline__ Selection(const SparseMlaDecodeArgs& a, int64_t b, int64_t n,
                                       int split) {
    int blocks[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const SparseMlaDecodeScope& scope = a.scopes[i];
      indices[i] = scope.indices + b * scope.indices_stride[0] + n * scope.indices_stride[1];
      int length = scope.topk;
      if (scope.lengths != nullptr)
        length = scope.lengths[b * scope.lengths_stride[0] + n * scope.lengths_stride[1]];
      lengths[i] = min(max(length, 0), scope.topk);
      blocks[i] = ceil_div(lengths[i], kBlock);
    }
    first_scope = blocks[0];
    const int all = blocks[0] + blocks[1];
    const int share = a.blocks_per_split > 0 ? a.blocks_per_split : ceil_div(all, a.splits);
    begin = min(all, split * share);
    count = min(all - begin, share);
  }

  // The slot of key `row` of block `j` of this CTA; negative where there is none.
  __device__ __forceinline__ int32_t slot(int j, int row) const {
    const int at = (begin + j - (scope(j) ? first_scope : 0)) * kBlock + row;
    const int length = (scope(j) ? lengths[1] : lengths[0]) + (DSA_FAULT == 404);
    const bool there = j < count && at < length;
    return there ? __ldg((scope(j) ? indices[1] : indices[0]) + at) : -1;
  }

  // Which scope block `j` is of.
  __device__ __forceinline__ int scope(int j) const { return begin + j >= first_scope; }
};

}  // namespace dsa::decode
