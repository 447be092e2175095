// The math warpgroups where there are few heads: keys, and dims of values, are the rows of products
// and heads their columns, so that 8 heads are not padded to 64.
#pragma once

#include "attend.cuh"

namespace dsa::decode {

// As Attention, transposed: scores [64 keys x n heads], output [256 dims x n heads]. A thread has
// the heads 8 i + 2 (lane % 4) and one more, i < n / 8, of keys (dims) `row` and `row` + 8; element
// i of a tile of 64 is of its head `column(i)`.
template <int d_qk, int n, bool fence_keys>
struct NarrowAttention {
  static constexpr int kElements = n / 2, kColumns = n / 4;

  Shared<d_qk>& s;
  const int group, row;
  const float scale;
  const bool negate;
  float output[kHalfTiles][kElements];
  float maximum[kColumns], sum[kColumns];

  __device__ __forceinline__ NarrowAttention(Shared<d_qk>& s, int group, float scale, bool negate)
      : s(s),
        group(group),
        row(warp_index() % 4 * 16 + lane_index() / 4),
        scale(scale),
        negate(negate) {
#pragma unroll
    for (int t = 0; t < kHalfTiles; ++t)
#pragma unroll
      for (int i = 0; i < kElements; ++i) output[t][i] = 0;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) maximum[c] = -FLT_MAX, sum[c] = 0;
  }

  static __device__ __forceinline__ constexpr int column(int i) { return i / 4 * 2 + i % 2; }
  static __device__ __forceinline__ int head(int c) {
    return c / 2 * 8 + lane_index() % 4 * 2 + c % 2;
  }

  __device__ __forceinline__ void score_block(int j, float (&score)[kElements]) {
    const uint64_t q = opaque(matrix_descriptor(s.q, Swizzle::k128, kRowsOf8));
    const uint64_t k = opaque(matrix_descriptor(&s.keys[group], Swizzle::k128, kRowsOf8));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      mbarrier_wait(s.full[group][half], parity_of(j));
      if constexpr (fence_keys) fence_async_proxy();
      wgmma_fence();
#pragma unroll
      for (int t = half * kHalfTiles; t < (half == 0 ? kHalfTiles : Shared<d_qk>::kTiles); ++t)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          wgmma_bf16<n>(score, advance(k, t * kTileBytes + i * 32),
                        advance(q, t * kTileBytes + i * 32), t + i > 0);
      wgmma_commit();
    }
    wgmma_wait<0>();
    pin(score);
  }

  // Of the 64 keys, over the lanes that share the thread's heads and over the warps.
  template <class Combine>
  __device__ __forceinline__ void reduce(float (&value)[kColumns], Combine combine) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
#pragma unroll
      for (int lanes = 4; lanes < kWarp; lanes *= 2)
        value[c] = combine(value[c], __shfl_xor_sync(~0u, value[c], lanes));
      if (lane_index() < 4) s.partial[group][row / 16][head(c)] = value[c];
    }
    named_barrier_sync(kGroup + group, kWarpgroup);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      value[c] = s.partial[group][0][head(c)];
#pragma unroll
      for (int warp = 1; warp < 4; ++warp)
        value[c] = combine(value[c], s.partial[group][warp][head(c)]);
    }
  }

  __device__ __forceinline__ void shrink_sums(const float (&larger)[kColumns],
                                              float (&shrink)[kColumns]) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      shrink[c] = exp2_approx(maximum[c] - larger[c]);
      maximum[c] = larger[c];
      sum[c] *= shrink[c];
    }
  }

  __device__ __forceinline__ void shrink_output(const float (&shrink)[kColumns]) {
    bool same = true;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) same &= shrink[c] == 1.0f;
    if constexpr (DSA_FAULT == 402) return;
    if (__all_sync(~0u, same)) return;
#pragma unroll
    for (int t = 0; t < kHalfTiles; ++t)
#pragma unroll
      for (int i = 0; i < kElements; ++i) output[t][i] *= shrink[column(i)];
  }

  // Scores become weights; the maxima are published.
  __device__ __forceinline__ void weigh(float (&score)[kElements], float (&shrink)[kColumns]) {
    const uint64_t valid = *reinterpret_cast<const uint64_t*>(s.valid[group]) >> row;
    float top[kColumns];
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      if (negate) score[i] = -score[i];
      if (!(valid >> i / 2 % 2 * 8 & 1)) score[i] = -INFINITY;
      const int c = column(i);
      top[c] = i / 2 % 2 == 0 ? score[i] : fmaxf(top[c], score[i]);
    }
    reduce(top, [](float a, float b) { return fmaxf(a, b); });
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      top[c] *= scale;
      if (!(top[c] > maximum[c] + kSlack)) top[c] = maximum[c];
      if (row == 0) s.maxima[group][head(c)] = top[c];
    }
    shrink_sums(top, shrink);
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      score[i] = exp2_approx(fmaf(score[i], scale, -maximum[column(i)]));
      sum[column(i)] += score[i];
    }
  }

  // As [heads][keys].
  __device__ __forceinline__ void publish_weights(const float (&score)[kElements]) {
    const int matrix = lane_index() / 8;
#pragma unroll
    for (int i = 0; i < n / 16; ++i) {
      uint32_t packed[4];  // heads 16 i + 8 (m / 2), keys 8 (m % 2) of the warp's
#pragma unroll
      for (int m = 0; m < 4; ++m)
        packed[m] = pack_bf16(score[8 * i + 2 * m], score[8 * i + 2 * m + 1]);
      store_matrices_transposed(
          chunk_of(s.keys[group].last, 16 * i + matrix / 2 * 8 + lane_index() % 8,
                   row / 16 * 2 + matrix % 2),
          packed);
    }
    fence_async_proxy();
    named_barrier_arrive(kWeights + group, kMathThreads);
    named_barrier_sync(kGroup + group, kWarpgroup);
  }

  // output += values . weights of the block in `buffer`.
  __device__ __forceinline__ void add(int buffer) {
    const uint64_t p = opaque(matrix_descriptor(&s.keys[buffer].last, Swizzle::k128, kRowsOf8));
    const uint64_t v = opaque(
        matrix_descriptor(&s.keys[buffer].values[group * kHalfTiles], Swizzle::k128, kRowsOf8));
    pin_output();
    wgmma_fence();
#pragma unroll
    for (int t = 0; t < kHalfTiles; ++t)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        wgmma_bf16<n, Major::kMN, Major::kK>(
            output[t], advance(v, t * kTileBytes + i * 2 * kRowsOf8), advance(p, i * 32), true);
    wgmma_commit();
  }

  __device__ __forceinline__ void add_other() {
    const int other = group ^ 1;
    named_barrier_sync(kWeights + other, kMathThreads);
    float larger[kColumns], shrink[kColumns];
#pragma unroll
    for (int c = 0; c < kColumns; ++c) larger[c] = s.maxima[other][head(c)];
    shrink_sums(larger, shrink);
    shrink_output(shrink);
    add(other);
  }

  __device__ __forceinline__ void finish_add() {
    wgmma_wait<0>();
    pin_output();
  }

  __device__ __forceinline__ void pin_output() {
#pragma unroll
    for (int t = 0; t < kHalfTiles; ++t) pin(output[t]);
  }

  template <bool has_other>
  __device__ __forceinline__ void step(int j) {
    float score[kElements], shrink[kColumns];
    score_block(j, score);
    if constexpr (has_other) add_other();
    weigh(score, shrink);
    publish_weights(score);
    if constexpr (has_other) {
      finish_add();
      release<false>(s, group, group ^ 1);
    }
    shrink_output(shrink);
    add(group);
    finish_add();
    release<false>(s, group, group);
  }

  __device__ __forceinline__ void run(int blocks) {
    int j = group;
    if (group == 0 && blocks > 0) {
      step<false>(0);
      j = 2;
    }
    for (; j < blocks; j += 2) step<true>(j);
    if (blocks > 0 && (blocks - 1) % 2 != group) {
      add_other();
      finish_add();
    }
  }

  __device__ __forceinline__ void stage() {
    reduce(sum, [](float a, float b) { return a + b; });
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (row == 0) {
        s.sums[group][head(c)] = sum[c];
        s.maxima[group][head(c)] = maximum[c];
      }
    }
#pragma unroll
    for (int t = 0; t < kHalfTiles; ++t)
#pragma unroll
      for (int i = 0; i < kElements; ++i)
        s.staged[head(column(i))][(group * kHalfTiles + t) * kTileDims + row + i / 2 % 2 * 8] =
            output[t][i];
  }
};

}  // namespace dsa::decode
