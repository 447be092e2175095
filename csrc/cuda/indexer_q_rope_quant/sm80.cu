// The indexer's q: RoPE, Hadamard, FP8 codes; the scale goes into the head weights.
//
// A warp does up to 16 heads of one token, so that it reads the token's cosines once: four steps of
// four heads, eight lanes a head, 16 bytes of bfloat16 a lane and vector. A step's q is asked for
// before the one before is done.

#include "../device/indexer_row.cuh"
#include "kernel.h"

namespace dsa {
namespace {

using cuda::IndexerQRopeQuantArgs;
using cuda::kHeadsPerWarp;

constexpr int kSteps = kHeadsPerWarp / kRowsPerWarp;
constexpr int kCtasPerSm = 5;  // 96 registers

// The weight of a head, times the scale that its codes were divided by.
__device__ __forceinline__ void fold_weight(const IndexerQRopeQuantArgs& p, int64_t token,
                                            int64_t head, float scale) {
  const int64_t at = token * p.weights_stride + head;
  const float weight = p.wide_weights
                           ? __ldg(static_cast<const float*>(p.weights) + at)
                           : __bfloat162float(__ldg(static_cast<const bf16*>(p.weights) + at));
  p.weights_out[token * p.weights_out_stride + head] =
      __fmul_rn(__fmul_rn(weight, DSA_FAULT == 513 ? 1.0f : scale), p.weights_scale);
}

// What a lane has of a head.
template <class T, int head_dim>
struct RawRow {
  Vector8<T> vectors[IndexerRow<head_dim>::kVectors];

  template <int access>
  __device__ __forceinline__ void load(const T* head, bool exists) {
#pragma unroll
    for (int v = 0; v < IndexerRow<head_dim>::kVectors; ++v) {
      vectors[v] = {};
      if (exists)
        vectors[v] = dsa::load<8 * sizeof(T), access>(head + IndexerRow<head_dim>::dim_of(v));
    }
  }
};

// Heads [first, first + 16) of a token, as far as there are.
template <class T, int head_dim, int access>
__device__ __forceinline__ void quantize_heads(const IndexerQRopeQuantArgs& p, int64_t token,
                                               int64_t first, float* shared) {
  const int row_of_step = lane_index() / kLanesPerRow;
  const T* q = static_cast<const T*>(p.q) + token * p.q_token_stride;
  RawRow<T, head_dim> next;
  const auto load_step = [&](int step) {
    const int64_t head = first + step * kRowsPerWarp + row_of_step;
    next.template load<access>(q + head * p.q_head_stride, step < kSteps && head < p.num_heads);
  };
  load_step(0);
  Rope<head_dim> rope;
  rope.find(p.input, token, true);
  rope.template load<access>(p.input);
  float scale = 0.0f;  // of step lane_in_row()
#pragma unroll 1
  for (int step = 0; step < kSteps && first + step * kRowsPerWarp < p.num_heads; ++step) {
    IndexerRow<head_dim> row;
#pragma unroll
    for (int v = 0; v < row.kVectors; ++v) to_float<T>(next.vectors[v], row.x[v]);
    load_step(step + 1);
    rope.template apply<T>(p.input, row, shared);
    if (p.input.hadamard) {
      row.hadamard();
      row.template round<T>();
    }
    const int64_t head = first + step * kRowsPerWarp + row_of_step;
    uint8_t* codes = p.q_out + token * p.q_out_token_stride + head * p.q_out_head_stride;
    const float step_scale =
        row.template quantize<access>(p.input.ue8m0, head < p.num_heads, codes);
    if (lane_in_row() == step) scale = step_scale;
  }
  const int64_t head = first + lane_in_row() * kRowsPerWarp + row_of_step;
  if (lane_in_row() < kSteps && head < p.num_heads)
    fold_weight(p, token, head, rope.invalid(p.input) ? __int_as_float(0x7fc00000) : scale);
}

template <class T, int head_dim, int access>
__device__ __forceinline__ void indexer_q_rope_quant(const IndexerQRopeQuantArgs& p) {
  extern __shared__ float shared[];
  constexpr int kWarps = cuda::kQuantThreads / kWarp;
  const int warp = threadIdx.x / kWarp;
  const cuda::Place place = p.chunks.place_of(int64_t{blockIdx.x} * kWarps + warp);
  if (place.block < p.num_tokens)
    quantize_heads<T, head_dim, access>(p, place.block, int64_t{place.offset} * kHeadsPerWarp,
                                        shared + warp * kRowsPerWarp * head_dim);
}

}  // namespace

#define DSA_KERNEL(name, T, head_dim, access)                                        \
  extern "C" __global__ void __launch_bounds__(cuda::kQuantThreads, kCtasPerSm)      \
      indexer_q_rope_quant_##name(const __grid_constant__ IndexerQRopeQuantArgs p) { \
    indexer_q_rope_quant<T, head_dim, access>(p);                                    \
  }

DSA_KERNEL(bf16_64, bf16, 64, 16)
DSA_KERNEL(bf16_128, bf16, 128, 16)
DSA_KERNEL(f32_64, float, 64, 16)
DSA_KERNEL(f32_128, float, 128, 16)
DSA_KERNEL(bf16_64_unaligned, bf16, 64, 1)
DSA_KERNEL(bf16_128_unaligned, bf16, 128, 1)
DSA_KERNEL(f32_64_unaligned, float, 64, 1)
DSA_KERNEL(f32_128_unaligned, float, 128, 1)

}  // namespace dsa
