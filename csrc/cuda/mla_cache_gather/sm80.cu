// Paged latent cache -> contiguous dequantised keys.
//
// A warp does four rows, which it looks up together, a row a lane. Of a row a lane has vectors of
// eight dims: 16 bytes of bfloat16 that neighbours continue, from eight codes or 16 bytes. Two rows
// are asked for before the first is written.
//
//     v32   vectors 0..63 latent, 64..71 RoPE      v4   0..55 latent, 56..63 RoPE

#include <cuda_fp16.h>

#include "../../formats.h"
#include "../device/paged_rows.cuh"
#include "kernel.h"

namespace dsa {
namespace {

using cuda::MlaCacheGatherArgs;

constexpr int kMaxVectors = (kValueDim + kRopeDim) / 8, kTurns = ceil_div(kMaxVectors, kWarp);
constexpr int kRowsInFlight = 2;

// What is read of the cache for eight dims: bfloat16, or codes in the first two words.
struct Raw {
  Words<16> words;
  float scale;  // 0 of bfloat16
};

// Bytes 1 and 3 of `codes`, e4m3, as floats; 0x7f becomes 480, not NaN. As f16, whose exponent is
// biased by 8 more, they are too small by 2^8.
__device__ __forceinline__ float2 e4m3_pair(uint32_t codes) {
  const uint32_t bits = (codes >> 1 & 0x3f803f80) | (codes & 0x80008000);
  const auto small = *reinterpret_cast<const __half2*>(&bits);
  return __half22float2(__hmul2(small, __float2half2_rn(256.0f)));
}

// bf16(fp32 code x fp32 scale) of eight codes.
__device__ __forceinline__ Words<16> dequantize(uint32_t low, uint32_t high, float scale) {
  float x[8];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = e4m3_pair(__byte_perm(i < 2 ? low : high, 0, i % 2 ? 0x3424 : 0x1404));
    x[2 * i] = __fmul_rn(pair.x, scale);
    x[2 * i + 1] = __fmul_rn(pair.y, scale);
  }
  const uint32_t nans = ((low & 0x7f7f7f7f) + 0x01010101) | ((high & 0x7f7f7f7f) + 0x01010101);
  if (nans & 0x80808080) {
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (((i < 4 ? low : high) >> 8 * (i % 4) & 0x7f) == 0x7f) x[i] = __int_as_float(0x7fc00000);
  }
  return from_float<bf16>(x);
}

// 2^(e - 127) as e8m0 has it: e = 0 is subnormal, e = 255 is NaN.
__device__ __forceinline__ float ue8m0_to_float(uint32_t e) {
  return __uint_as_float(e == 0 ? 0x00400000u : e == 255 ? 0x7fc00000u : e << 23);
}

template <class Format>
struct Reader;

template <>
struct Reader<V32> {
  template <int access>
  static __device__ __forceinline__ Raw read(const MlaCacheGatherArgs&, const uint8_t* page,
                                             uint32_t token, int dim) {
    const uint8_t* record = page + int64_t{token} * V32::kRecordBytes;
    if (dim >= V32::kNopeDim)
      return {load<16, access>(record + V32::kRopeOffset + 2 * (dim - V32::kNopeDim)), 0.0f};
    const Words<8> codes = load<8, access>(record + dim);
    const auto* scale =
        record + V32::kScaleOffset +
        dim / (DSA_FAULT == 505 ? 64 : V32::kGroupDim) % V32::kGroups * sizeof(float);
    return {{codes.at[0], codes.at[1]}, __uint_as_float(load<4, access>(scale).at[0])};
  }
  static __device__ __forceinline__ bool quantized(int dim) { return dim < V32::kNopeDim; }
};

template <>
struct Reader<V4> {
  template <int access>
  static __device__ __forceinline__ Raw read(const MlaCacheGatherArgs& p, const uint8_t* page,
                                             uint32_t token, int dim) {
    const uint8_t* record = page + int64_t{token} * V4::kDataBytes;
    if (dim >= V4::kNopeDim)
      return {load<16, access>(record + V4::kRopeOffset + 2 * (dim - V4::kNopeDim)), 0.0f};
    const Words<8> codes = load<8, access>(record + dim);
    const uint8_t* plane = page + int64_t{p.rows.pages.size} * V4::kDataBytes;
    const uint32_t exponent = __ldg(plane + int64_t{token} * V4::kScaleBytes + dim / V4::kGroupDim);
    return {{codes.at[0], codes.at[1]}, ue8m0_to_float(exponent)};
  }
  static __device__ __forceinline__ bool quantized(int dim) { return dim < V4::kNopeDim; }
};

struct BFloat16 {};

template <>
struct Reader<BFloat16> {
  template <int access>
  static __device__ __forceinline__ Raw read(const MlaCacheGatherArgs& p, const uint8_t* page,
                                             uint32_t token, int dim) {
    return {load<16, access>(page + 2 * (int64_t{token} * p.d_qk + dim)), 0.0f};
  }
  static __device__ __forceinline__ bool quantized(int) { return false; }
};

template <class Format>
__device__ __forceinline__ Words<16> key_of(const Raw& raw, int dim) {
  Words<16> key = raw.words;
  if (Reader<Format>::quantized(dim)) key = dequantize(key.at[0], key.at[1], raw.scale);
  plain_nan(key);
  return key;
}

template <class Format, class T, int access>
__device__ __forceinline__ void gather_rows(const MlaCacheGatherArgs& p, int32_t first) {
  const int rows = min(cuda::kLatentGatherRows, p.rows.num_rows - first);
  const Source mine = find_source(p.rows, first, rows);
#pragma unroll 1
  for (int pair = 0; pair < cuda::kLatentGatherRows; pair += kRowsInFlight) {
    Raw raw[kRowsInFlight][kTurns];
    Source source[kRowsInFlight];
#pragma unroll
    for (int r = 0; r < kRowsInFlight; ++r) {
      source[r] = source_of(mine, pair + r);
      const uint8_t* page = p.cache + source[r].page * p.page_bytes;
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        const int dim = 8 * (turn * kWarp + lane_index());
        raw[r][turn] = {};
        if (source[r].page >= 0 && dim < p.d_qk)
          raw[r][turn] = Reader<Format>::template read<access>(p, page, source[r].token, dim);
      }
    }
#pragma unroll
    for (int r = 0; r < kRowsInFlight; ++r) {
      if (source[r].page == Source::kUnclaimed) continue;
      T* out = static_cast<T*>(p.out) + int64_t{first + pair + r} * p.out_stride;
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        const int dim = 8 * (turn * kWarp + lane_index());
        if (dim >= p.d_qk) continue;
        const Words<16> key = key_of<Format>(raw[r][turn], dim);
        if constexpr (sizeof(T) == 2) {
          store<access>(out + dim, key);
        } else {
          float x[8];
          to_float<bf16>(key, x);
          store<access>(out + dim, from_float<T>(x));
        }
      }
    }
  }
}

template <class Format, class T, int access>
__device__ __forceinline__ void mla_cache_gather(const MlaCacheGatherArgs& p) {
  constexpr int kWarps = cuda::kLatentGatherThreads / kWarp;
  const int64_t warp = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  const int64_t first = warp * cuda::kLatentGatherRows;
  if (first < p.rows.num_rows) gather_rows<Format, T, access>(p, static_cast<int32_t>(first));
}

}  // namespace

#define DSA_KERNEL(name, Format, T, access)                                   \
  extern "C" __global__ void __launch_bounds__(cuda::kLatentGatherThreads)    \
      mla_cache_gather_##name(const __grid_constant__ MlaCacheGatherArgs p) { \
    mla_cache_gather<Format, T, access>(p);                                   \
  }
#define DSA_KERNELS(format, Format)                    \
  DSA_KERNEL(format##_bf16, Format, bf16, 16)          \
  DSA_KERNEL(format##_f32, Format, float, 16)          \
  DSA_KERNEL(format##_bf16_unaligned, Format, bf16, 1) \
  DSA_KERNEL(format##_f32_unaligned, Format, float, 1)

DSA_KERNELS(v32, V32)
DSA_KERNELS(v4, V4)
DSA_KERNELS(bf16, BFloat16)

}  // namespace dsa
