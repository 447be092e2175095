// The math warpgroups: scores, online softmax and the products with values.
#pragma once

#include "../device/fp8.cuh"
#include "../device/math.cuh"
#include "../device/matrix_store.cuh"
#include "../device/wgmma.cuh"
#include "shared.cuh"

namespace dsa::prefill {

constexpr uint32_t kTileBytes = sizeof(Tile), kRowsOf8 = 1024;
// A row's maximum is renewed when it is exceeded by more than this, in powers of two: until then
// weights are at most 2^8, which loses no precision in bf16 or fp32.
constexpr float kSlack = 8.0f;

// Warpgroup `group` scores the blocks j with j % 2 = group, weighs them and hands the weights to
// the other one through shared memory. Both multiply all weights by their half of the values. A
// thread has rows `row` and `row` + 8 of scores [64 heads x 64 keys] and of the output.
template <class S, int group>
struct Attention {
  static constexpr Half kOwn = group == 0 ? kLeft : kRight;  // of the values

  S& s;
  const int row;
  const float scale;                        // of scores, times log2 e
  uint32_t held[S::kHeld][4][4];            // the last tiles of q, as A of wgmma
  float output[128];                        // [64 heads x 256 dims]
  float maximum[2] = {-FLT_MAX, -FLT_MAX};  // finite, so that differences are no NaN
  float top[2] = {-INFINITY, -INFINITY};
  float sum[2] = {};  // of this thread's weights

  __device__ __forceinline__ Attention(S& s, float scale)
      : s(s), row(warp_index() % 4 * 16 + lane_index() / 4), scale(scale) {
#pragma unroll
    for (float& o : output) o = 0;
    const int lane = lane_index();
    // Group 1's weights come in their place, after group 0's first ones: then both have them.
#pragma unroll
    for (int t = 0; t < S::kHeld; ++t)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        load_matrices(held[t][i], chunk_of(s.q[S::kStayingTiles + t], row / 16 * 16 + lane % 16,
                                           2 * i + lane / 16));
  }

  static __device__ __forceinline__ uint32_t parity(int j) { return j / 2 % 2; }

  // score = q . keys of block j, which is in buffer `group`.
  __device__ __forceinline__ void score_block(int j, float (&score)[32]) {
    const uint64_t q = opaque(matrix_descriptor(s.q, Swizzle::k128, kRowsOf8));
    const uint64_t k = opaque(matrix_descriptor(s.keys[group], Swizzle::k128, kRowsOf8));
    constexpr Half kOrder[2] = {first_half(group), first_half(group ^ 1)};
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      mbarrier_wait(s.full[group][kOrder[h]], parity(j));
      fence_async_proxy();  // cp.async writes as a thread does
      wgmma_fence();
#pragma unroll
      for (int t = S::begin_of(kOrder[h]); t < S::end_of(kOrder[h]); ++t)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint64_t k_at = advance(k, t * kTileBytes + i * 32);
          const bool accumulate = h > 0 || t > S::begin_of(kOrder[0]) || i > 0;
          if (t < S::kStayingTiles)
            wgmma_bf16<64>(score, advance(q, t * kTileBytes + i * 32), k_at, accumulate);
          else
            wgmma_bf16<64>(score, held[t - S::kStayingTiles][i], k_at, accumulate);
        }
      wgmma_commit();
    }
    wgmma_wait<0>();
    pin(score);
  }

  // Renews the maxima; what has been summed up shrinks accordingly.
  __device__ __forceinline__ void shrink_sums(const float (&larger)[2], float (&shrink)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      shrink[r] = exp2_approx(maximum[r] - larger[r]);
      maximum[r] = larger[r];
      sum[r] *= shrink[r];
    }
  }

  __device__ __forceinline__ void shrink_output(const float (&shrink)[2]) {
    if (__all_sync(~0u, shrink[0] == 1.0f && shrink[1] == 1.0f) || DSA_FAULT == 301) return;
#pragma unroll
    for (int i = 0; i < 128; ++i) output[i] *= shrink[i / 2 % 2];
  }

  // -inf where there is no key.
  __device__ __forceinline__ void mask(float (&score)[32]) const {
    const uint64_t valid = *reinterpret_cast<const uint64_t*>(s.valid[group]);
    if (valid == ~uint64_t{0} || DSA_FAULT == 302) return;
    const uint64_t mine = valid >> 2 * (lane_index() % 4);
#pragma unroll
    for (int i = 0; i < 32; ++i)
      if (!(mine >> (i / 4 * 8 + i % 2) & 1)) score[i] = -INFINITY;
  }

  // Scores become weights, packed as A of wgmma: 4 registers for 16 keys.
  __device__ __forceinline__ void weigh(float (&score)[32], uint32_t (&weights)[4][4],
                                        float (&shrink)[2]) {
    mask(score);
    float larger[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float best = score[2 * r];
#pragma unroll
      for (int i = 0; i < 32; ++i)
        if (i / 2 % 2 == r && i != 2 * r) best = max_nan(best, score[i]);
      best = max_of_quad(best);
      top[r] = max_nan(top[r], best);
      larger[r] = best * scale > maximum[r] + kSlack ? best * scale : maximum[r];
      if (lane_index() % 4 == 0) s.maxima[group][row + 8 * r] = larger[r];
    }
    shrink_sums(larger, shrink);
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int r = i / 2 % 2;
      score[i] = exp2_approx(fmaf(score[i], scale, -maximum[r]));
      sum[r] += score[i];
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) weights[i / 4][i % 4] = pack_bf16(score[2 * i], score[2 * i + 1]);
  }

  // For the other warpgroup.
  __device__ __forceinline__ void publish(const uint32_t (&weights)[4][4]) {
    const int lane = lane_index();
#pragma unroll
    for (int i = 0; i < 4; ++i)
      store_matrices(chunk_of(s.weights(group), row / 16 * 16 + lane % 16, 2 * i + lane / 16),
                     weights[i]);
    fence_async_proxy();
    named_barrier_arrive(kWeights + group, kMathThreads);
  }

  __device__ __forceinline__ uint64_t values(int buffer) const {
    return opaque(
        matrix_descriptor(s.keys[buffer][S::begin_of(kOwn)], Swizzle::k128, kRowsOf8, kTileBytes));
  }

  // output += weights . values of this warpgroup's block.
  __device__ __forceinline__ void add_own(const uint32_t (&weights)[4][4]) {
    const uint64_t v = values(group);
    pin(output);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4; ++i)
      wgmma_bf16<256, Major::kMN>(output, weights[i], advance(v, i * 2 * kRowsOf8), true);
    wgmma_commit();
  }

  // The same of the other one's block, once its weights are there.
  __device__ __forceinline__ void add_other() {
    constexpr int kOther = group ^ 1;
    named_barrier_sync(kWeights + kOther, kMathThreads);
    const float larger[2] = {s.maxima[kOther][row], s.maxima[kOther][row + 8]};
    float shrink[2];
    shrink_sums(larger, shrink);
    shrink_output(shrink);
    const uint64_t p = opaque(matrix_descriptor(s.weights(kOther), Swizzle::k128, kRowsOf8));
    const uint64_t v = values(kOther);
    pin(output);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4; ++i)
      wgmma_bf16<256, Major::kK, Major::kMN>(output, advance(p, i * 32),
                                             advance(v, i * 2 * kRowsOf8), true);
    wgmma_commit();
  }

  // This warp has read its half of the buffer for the last time.
  __device__ __forceinline__ void release(int buffer) {
    __syncwarp();
    if (lane_index() == 0) mbarrier_arrive(s.empty[buffer][kOwn]);
  }

  __device__ __forceinline__ void finish_products() {
    wgmma_wait<0>();
    pin(output);
  }

  template <bool has_other>
  __device__ __forceinline__ void step(int j) {
    float score[32], shrink[2];
    uint32_t weights[4][4];
    score_block(j, score);
    if constexpr (has_other)
      add_other();
    else if constexpr (S::kBorrows)
      named_barrier_sync(kStaged + group, kWarpgroup);  // the other warps have scored, too
    weigh(score, weights, shrink);
    publish(weights);
    if constexpr (has_other) {
      finish_products();
      release(group ^ 1);
    }
    shrink_output(shrink);
    add_own(weights);
    finish_products();
    release(group);
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
      finish_products();
    }
  }
};

}  // namespace dsa::prefill
