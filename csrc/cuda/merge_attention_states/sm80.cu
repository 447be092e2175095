// Log-sum-exp merge of partial attention results.
//
// A warp does a (row, head): its lanes have a part's weight each, 32 parts at a time, and then 512
// dims at a time, 16 of them a lane, in vectors of 16 bytes that neighbours continue. Sums run over
// parts in index order, whatever they are, so that an empty part leaves no trace.

#include <math_constants.h>

#include "../device/vector.cuh"
#include "kernel.h"

namespace dsa {
namespace {

using cuda::MergeAttentionStatesArgs;

constexpr int kDimsPerLane = 16, kDimsPerPass = kDimsPerLane * kWarp;
constexpr int kCtasPerSm = 3;  // 168 registers

template <class T, int n>
__device__ __forceinline__ void load_values(const T* from, float (&x)[n]) {
  if constexpr (n == 1) {
    x[0] = static_cast<float>(__ldg(from));
  } else {
    to_float<T>(load<n * sizeof(T), 16>(from), x);
  }
}

template <class T, int n>
__device__ __forceinline__ void store_values(T* to, const float (&x)[n]) {
  if constexpr (n == 1) {
    *to = static_cast<T>(x[0]);
  } else {
    store<16>(to, from_float<T>(x));
  }
}

struct Head {
  const MergeAttentionStatesArgs& p;
  int64_t row, head;
  float max = 0.0f, denominator = 0.0f;

  // The lse of part `first + lane`; -inf past the last part.
  __device__ __forceinline__ float part_lse(int64_t first) const {
    const int64_t part = first + lane_index();
    if (part >= p.num_parts) return -CUDART_INF_F;
    return __ldg(p.lses + part * p.lses_part_stride + row * p.lses_row_stride +
                 head * p.lses_head_stride);
  }

  __device__ __forceinline__ int parts_from(int64_t first) const {
    const int64_t parts = p.num_parts - (DSA_FAULT == 503 && p.num_parts > kWarp);
    return static_cast<int>(min(int64_t{kWarp}, parts - first));
  }

  // NaN where any lse is.
  __device__ __forceinline__ float largest() const {
    float largest = -CUDART_INF_F;
    bool nan = false;
    for (int64_t first = 0; first < p.num_parts; first += kWarp) {
      const float x = part_lse(first);
      nan |= x != x;
      largest = fmaxf(largest, x);
    }
    largest = max_of_lanes<kWarp>(largest);
    return __any_sync(0xffffffff, nan) ? CUDART_NAN_F : largest;
  }

  // Of exp(lse - max) over parts.
  __device__ __forceinline__ float sum() const {
    float sum = 0.0f;
    for (int64_t first = 0; first < p.num_parts; first += kWarp) {
      const float x = part_lse(first);
      const float term = x == -CUDART_INF_F ? 0.0f : expf(x - max);
      for (int i = 0; i < parts_from(first); ++i) sum += __shfl_sync(0xffffffff, term, i);
    }
    return sum;
  }

  // Returns the lse of all parts.
  __device__ __forceinline__ float weigh() {
    max = largest();
    denominator = sum();
    const float lse = fabsf(max) < CUDART_INF_F ? max + logf(denominator) : max;
    if (p.attn_sink != nullptr) denominator *= 1.0f + expf(__ldg(p.attn_sink + head) - lse);
    return lse;
  }

  // Dims [first_dim, first_dim + 512), as far as there are.
  template <class In, class Out, int vector>
  __device__ __forceinline__ void merge(int64_t first_dim) const {
    constexpr int kVectors = kDimsPerLane / vector;
    constexpr int kPartsInFlight = vector == 1 ? 1 : 4;
    const auto* outs =
        static_cast<const In*>(p.outs) + row * p.outs_row_stride + head * p.outs_head_stride;
    const int64_t lane_dim = first_dim + lane_index() * vector;
    float merged[kVectors][vector] = {};
    for (int64_t first = 0; first < p.num_parts; first += kWarp) {
      const float x = part_lse(first);
      const float weight = expf(x - max) / denominator;
      const uint32_t seen = __ballot_sync(0xffffffff, x != -CUDART_INF_F);
      for (int i = 0; i < parts_from(first); i += kPartsInFlight) {
        float values[kPartsInFlight][kVectors][vector] = {};
#pragma unroll
        for (int a = 0; a < kPartsInFlight; ++a) {
          if ((seen >> (i + a) & 1) == 0) continue;
          const In* part = outs + (first + i + a) * p.outs_part_stride;
#pragma unroll
          for (int v = 0; v < kVectors; ++v) {
            const int64_t dim = lane_dim + v * kWarp * vector;
            if (dim < p.d_v) load_values(part + dim, values[a][v]);
          }
        }
#pragma unroll
        for (int a = 0; a < kPartsInFlight; ++a) {
          const float w = __shfl_sync(0xffffffff, weight, i + a);
          if ((seen >> (i + a) & 1) == 0 && DSA_FAULT != 504) continue;
#pragma unroll
          for (int v = 0; v < kVectors; ++v)
#pragma unroll
            for (int e = 0; e < vector; ++e)
              merged[v][e] = __fmaf_rn(w, values[a][v][e], merged[v][e]);
        }
      }
    }
    Out* out = static_cast<Out*>(p.out) + row * p.out_row_stride + head * p.out_head_stride;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int64_t dim = lane_dim + v * kWarp * vector;
      if (dim < p.d_v) store_values(out + dim, merged[v]);
    }
  }
};

template <class In, class Out, int vector>
__device__ __forceinline__ void merge_attention_states(const MergeAttentionStatesArgs& p) {
  constexpr int kWarps = cuda::kMergeThreads / kWarp;
  const int64_t items = p.num_rows * p.heads.size;
  for (int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp; item < items;
       item += int64_t{gridDim.x} * kWarps) {
    const cuda::Place place = p.heads.place_of(item);
    Head head{p, place.block, place.offset};
    const float lse = head.weigh();
    if (lane_index() == 0) p.lse[head.row * p.lse_row_stride + head.head * p.lse_head_stride] = lse;
    for (int64_t dim = 0; dim < p.d_v; dim += kDimsPerPass) head.merge<In, Out, vector>(dim);
  }
}

}  // namespace

// Vectors are 16 bytes of the wider type.
#define DSA_KERNEL(name, In, Out, vector)                                                 \
  extern "C" __global__ void __launch_bounds__(cuda::kMergeThreads, kCtasPerSm)           \
      merge_attention_states_##name(const __grid_constant__ MergeAttentionStatesArgs p) { \
    merge_attention_states<In, Out, vector>(p);                                           \
  }

DSA_KERNEL(bf16_bf16, bf16, bf16, 8)
DSA_KERNEL(bf16_f32, bf16, float, 4)
DSA_KERNEL(f32_bf16, float, bf16, 4)
DSA_KERNEL(f32_f32, float, float, 4)
DSA_KERNEL(bf16_bf16_unaligned, bf16, bf16, 1)
DSA_KERNEL(bf16_f32_unaligned, bf16, float, 1)
DSA_KERNEL(f32_bf16_unaligned, float, bf16, 1)
DSA_KERNEL(f32_f32_unaligned, float, float, 1)

}  // namespace dsa
