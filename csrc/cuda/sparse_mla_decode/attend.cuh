// The math warpgroups: scores, online softmax and the products with values.
#pragma once

#include "../device/fp8.cuh"
#include "../device/math.cuh"
#include "../device/matrix_store.cuh"
#include "../device/wgmma.cuh"
#include "shared.cuh"

namespace dsa::decode {

constexpr uint32_t kTileBytes = sizeof(Tile), kRowsOf8 = 1024;
// A row's maximum is renewed when it is exceeded by more than this, in powers of two: until then
// weights are at most 2^8, which loses no precision in bf16 or fp32.
constexpr float kSlack = 8.0f;

// Warpgroup `group` scores the blocks j with j % 2 = group, weighs them and hands the weights to
// the other one through shared memory. Both multiply all weights by their half of the values. A
// thread has rows `row` and `row` + 8 of scores [64 heads x 64 keys] and of the output.
// `fence_keys`: keys were written by cp.async or st.async, and those who wrote them have fenced
// nothing. `paired`: another CTA writes to the same buffers.
template <int d_qk, bool fence_keys, bool paired>
struct Attention {
  Shared<d_qk>& s;
  const int group, row;
  const float scale;  // of scores, times log2 e
  const bool negate;
  float output[128];                        // [64 heads x 256 dims]
  float maximum[2] = {-FLT_MAX, -FLT_MAX};  // finite, so that differences are no NaN
  float sum[2] = {};                        // of this thread's weights

  __device__ __forceinline__ Attention(Shared<d_qk>& s, int group, float scale, bool negate)
      : s(s),
        group(group),
        row(warp_index() % 4 * 16 + lane_index() / 4),
        scale(scale),
        negate(negate) {
#pragma unroll
    for (float& o : output) o = 0;
  }

  // score = q . keys of block j, which is in buffer `group`.
  __device__ __forceinline__ void score_block(int j, float (&score)[32]) {
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
          wgmma_bf16<64>(score, advance(q, t * kTileBytes + i * 32),
                         advance(k, t * kTileBytes + i * 32), t + i > 0);
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
    if constexpr (DSA_FAULT == 402) return;
    if (__all_sync(~0u, shrink[0] == 1.0f && shrink[1] == 1.0f)) return;
#pragma unroll
    for (int i = 0; i < 128; ++i) output[i] *= shrink[i / 2 % 2];
  }

  // Scores become weights, packed as A of wgmma: 4 registers for 16 keys.
  __device__ __forceinline__ void weigh(float (&score)[32], uint32_t (&weights)[4][4],
                                        float (&shrink)[2]) {
    const uint64_t valid = *reinterpret_cast<const uint64_t*>(s.valid[group]);
    if (negate) {
#pragma unroll
      for (float& x : score) x = -x;
    }
    if (valid != ~uint64_t{0}) {
      const uint64_t mine = valid >> 2 * (lane_index() % 4);
#pragma unroll
      for (int i = 0; i < 32; ++i)
        if (!(mine >> (i / 4 * 8 + i % 2) & 1)) score[i] = -INFINITY;
    }
    float larger[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = score[2 * r];
#pragma unroll
      for (int i = 0; i < 32; ++i)
        if (i / 2 % 2 == r) top = fmaxf(top, score[i]);
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 2)) * scale;
      larger[r] = top > maximum[r] + kSlack ? top : maximum[r];
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
  __device__ __forceinline__ void publish_weights(const uint32_t (&weights)[4][4]) {
    const int lane = lane_index();
#pragma unroll
    for (int i = 0; i < 4; ++i)
      store_matrices(chunk_of(s.keys[group].last, row / 16 * 16 + lane % 16, 2 * i + lane / 16),
                     weights[i]);
    fence_async_proxy();
    named_barrier_arrive(kWeights + group, kMathThreads);
  }

  __device__ __forceinline__ uint64_t values(int buffer) const {
    return opaque(matrix_descriptor(&s.keys[buffer].values[group * kHalfTiles], Swizzle::k128,
                                    kRowsOf8, kTileBytes));
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
    const int other = group ^ 1;
    named_barrier_sync(kWeights + other, kMathThreads);
    const float larger[2] = {s.maxima[other][row], s.maxima[other][row + 8]};
    float shrink[2];
    shrink_sums(larger, shrink);
    shrink_output(shrink);
    const uint64_t p = opaque(matrix_descriptor(&s.keys[other].last, Swizzle::k128, kRowsOf8));
    const uint64_t v = values(other);
    pin(output);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4; ++i)
      wgmma_bf16<256, Major::kK, Major::kMN>(output, advance(p, i * 32),
                                             advance(v, i * 2 * kRowsOf8), true);
    wgmma_commit();
  }

  template <bool has_other>
  __device__ __forceinline__ void step(int j) {
    float score[32], shrink[2];
    uint32_t weights[4][4];
    score_block(j, score);
    if constexpr (has_other) add_other();
    weigh(score, weights, shrink);
    publish_weights(weights);
    if constexpr (has_other) {
      wgmma_wait<0>();
      pin(output);
      release<paired>(s, group, group ^ 1);
    }
    shrink_output(shrink);
    add_own(weights);
    wgmma_wait<0>();
    pin(output);
    release<paired>(s, group, group);
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
      wgmma_wait<0>();
      pin(output);
    }
  }

  // After the last block, when nobody reads the buffers any more.
  __device__ __forceinline__ void stage() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float total = sum_of_quad(sum[r]);
      if (lane_index() % 4 == 0) {
        s.sums[group][row + 8 * r] = total;
        s.maxima[group][row + 8 * r] = maximum[r];
      }
    }
    float* to = &s.staged[row][group * (kValueDim / 2) + lane_index() % 4 * 2];
#pragma unroll
    for (int i = 0; i < 128; i += 2)
      *reinterpret_cast<float2*>(to + i / 4 * 8 + i / 2 % 2 * 8 * kStagedRow) =
          make_float2(output[i], output[i + 1]);
  }
};

}  // namespace dsa::decode
