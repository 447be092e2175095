// From the math warpgroups' sums and products to out, max_logits and lse.
#pragma once

#include "attend.cuh"

namespace dsa::prefill {

// What a row's sums come to.
struct RowResult {
  float factor;  // of the output
  float max_logit, lse;
};

template <class S>
__device__ __forceinline__ RowResult finish_row(const S& s, const SparseMlaPrefillArgs& a, int row,
                                                int head, float maximum) {
  constexpr float kLog2E = 1.44269504088896f;
  const float total = s.sums[0][row] + s.sums[1][row];
  const float top = max_nan(s.tops[0][row], s.tops[1][row]);
  if (total == 0) return {0, -INFINITY, -INFINITY};  // no key, or none above -inf
  float denominator = total;
  if (a.attn_sink != nullptr && head < a.num_heads)
    denominator += exp2f(fmaf(a.attn_sink[head], kLog2E, -maximum));
  return {1 / denominator, DSA_FAULT == 304 ? maximum * a.natural[0] : top * a.sm_scale,
          fmaf(maximum, a.natural[0], fmaf(maximum, a.natural[1], logf(total)))};
}

// Rows of 256 dims, from tiles to global memory; a warp writes a row at a time.
template <class S, int group>
__device__ __forceinline__ void copy_out(S& s, bf16* out, int64_t stride, int rows, bool aligned) {
  const int lane = lane_index();
  out += group * (kValueDim / 2) + 8 * lane;
  Tile& tile = s.q[group * kHalfTiles + lane / 8];
  for (int row = warp_index() % 4; row < rows; row += 4) {
    const uint4 value = *reinterpret_cast<const uint4*>(chunk_of(tile, row, lane % 8));
    bf16* to = out + row * stride;
    if (aligned) {
      *reinterpret_cast<uint4*>(to) = value;
    } else {
      const uint32_t words[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
      for (int i = 0; i < 8; ++i)
        reinterpret_cast<uint16_t*>(to)[i] = static_cast<uint16_t>(words[i / 2] >> 16 * (i % 2));
    }
  }
}

template <class S, int group>
__device__ __forceinline__ void finish(Attention<S, group>& t, const SparseMlaPrefillArgs& a,
                                       int64_t query, int first_head) {
  S& s = t.s;
  const int lane = lane_index();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float sum = sum_of_quad(t.sum[r]);
    if (lane % 4 == 0) {
      s.sums[group][t.row + 8 * r] = sum;
      s.tops[group][t.row + 8 * r] = t.top[r];
    }
  }
  named_barrier_sync(kMath, kMathThreads);  // nobody needs q and the weights any more
  float factor[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = t.row + 8 * r, head = first_head + row;
    const RowResult result = finish_row(s, a, row, head, t.maximum[r]);
    factor[r] = result.factor;
    if (group == 0 && lane % 4 == 0 && head < a.num_heads) {
      a.max_logits[query * a.max_logits_stride + head] = result.max_logit;
      a.lse[query * a.lse_stride + head] = result.lse;
    }
  }
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    uint32_t values[4];
#pragma unroll
    for (int m = 0; m < 4; ++m)
      values[m] = pack_bf16(t.output[8 * i + 2 * m] * factor[m % 2],
                            t.output[8 * i + 2 * m + 1] * factor[m % 2]);
    store_matrices(chunk_of(s.q[group * kHalfTiles + i / 4], t.row / 16 * 16 + lane % 16,
                            2 * (i % 4) + lane / 16),
                   values);
  }
  named_barrier_sync(kStaged + group, kWarpgroup);
  bf16* out = static_cast<bf16*>(a.out) + query * a.out_stride[0] + first_head * a.out_stride[1];
  copy_out<S, group>(s, out, a.out_stride[1], min(kHeads, a.num_heads - first_head), a.out_aligned);
}

}  // namespace dsa::prefill
