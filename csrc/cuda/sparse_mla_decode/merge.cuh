// The epilogue: the splits of a row, a CTA of the cluster each, are merged and written.
#pragma once

#include "../device/fp8.cuh"
#include "shared.cuh"

namespace dsa::decode {

constexpr float kLn2 = 0.693147180559945f, kLog2E = 1.44269504088896f;

// What the splits' parts of a head's output count, in lane i of split i, and the row's lse.
struct Merge {
  float weight, lse;
};

// The rank in the cluster of the CTA that has this CTA's heads of a split.
template <bool paired>
__device__ __forceinline__ uint32_t cta_of(int split) {
  return paired ? 2 * split + member_of_pair() : split;
}

template <bool paired, int d_qk>
__device__ __forceinline__ Merge weigh_splits(Shared<d_qk>& s, const SparseMlaDecodeArgs& a,
                                              int row, int head) {
  const int lane = lane_index();
  float maximum = -FLT_MAX, sum = 0;
  if (lane < a.splits - (DSA_FAULT == 403 && a.splits > 1)) {
    const uint32_t cta = cta_of<paired>(lane);
    maximum = __uint_as_float(remote_load(remote_address(&s.maxima[0][row], cta)));
    sum = __uint_as_float(remote_load(remote_address(&s.sums[0][row], cta))) +
          __uint_as_float(remote_load(remote_address(&s.sums[1][row], cta)));
  }
  float top = maximum;
#pragma unroll
  for (int i = kWarp / 2; i > 0; i /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, i));
  float weight = exp2f(maximum - top), total = sum * weight;
#pragma unroll
  for (int i = kWarp / 2; i > 0; i /= 2) total += __shfl_xor_sync(~0u, total, i);
  if (total == 0) return {0, -INFINITY};  // no key
  const float sink =
      a.attn_sink == nullptr ? 0 : exp2f(a.attn_sink[head] * kLog2E - (DSA_FAULT == 405 ? 0 : top));
  return {weight / (total + sink), top * kLn2 + logf(total)};
}

// Four neighbouring dims.
__device__ __forceinline__ void store_out(bf16* to, float4 value, bool aligned) {
  const uint2 packed = make_uint2(pack_bf16(value.x, value.y), pack_bf16(value.z, value.w));
  if (aligned) {
    *reinterpret_cast<uint2*>(to) = packed;
  } else {
    const uint16_t each[4] = {
        static_cast<uint16_t>(packed.x), static_cast<uint16_t>(packed.x >> 16),
        static_cast<uint16_t>(packed.y), static_cast<uint16_t>(packed.y >> 16)};
#pragma unroll
    for (int i = 0; i < 4; ++i) reinterpret_cast<uint16_t*>(to)[i] = each[i];
  }
}

// Split `split` writes every splits-th row, a warp each.
template <bool paired, int d_qk>
__device__ __forceinline__ void merge(Shared<d_qk>& s, const SparseMlaDecodeArgs& a, int64_t b,
                                      int64_t n, int first_head, int split) {
  const int heads = min(kHeads, a.num_heads - first_head), lane = lane_index();
  bf16* out = static_cast<bf16*>(a.out) + b * a.out_stride[0] + n * a.out_stride[1];
  float* lse = a.lse + b * a.lse_stride[0] + n * a.lse_stride[1];
  for (int row = split + a.splits * warp_index(); row < heads;
       row += a.splits * (kThreads / kWarp)) {
    const int head = first_head + row;
    const Merge parts = weigh_splits<paired>(s, a, row, head);
    if (lane == 0) lse[head * a.lse_stride[2]] = parts.lse;
    float4 sum[4] = {};
    for (int i = 0; i < a.splits; ++i) {
      const float weight = __shfl_sync(~0u, parts.weight, i);
      const uint32_t from = remote_address(&s.staged[row][4 * lane], cta_of<paired>(i));
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const float4 part = remote_load_4(from + c * 4 * kWarp * sizeof(float));
        sum[c].x += weight * part.x;
        sum[c].y += weight * part.y;
        sum[c].z += weight * part.z;
        sum[c].w += weight * part.w;
      }
    }
#pragma unroll
    for (int c = 0; c < 4; ++c)
      store_out(out + head * a.out_stride[2] + 4 * (lane + c * kWarp), sum[c], a.out_aligned);
  }
}

}  // namespace dsa::decode
