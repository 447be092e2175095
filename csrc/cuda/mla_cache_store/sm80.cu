// Latents and rotated RoPE dims -> records of a paged latent cache.
//
// A warp does a token: vectors of eight dims, neighbouring lanes, 16 bytes of bfloat16 each. A
// group that shares a scale is 16 lanes (v32) or 8 (v4) of one vector.
//
//     v32   vectors 0..31, 32..63 latent, 64..71 RoPE      v4   0..31, 32..55 latent, 56..63 RoPE

#include "../device/quantize.cuh"
#include "kernel.h"

namespace dsa {
namespace {

using cuda::MlaCacheStoreArgs;

constexpr int kMaxVectors = (kValueDim + kRopeDim) / 8, kTurns = ceil_div(kMaxVectors, kWarp);

// What a lane has of a token.
template <class T>
using Dims = Vector8<T>[kTurns];

template <class T, int access>
__device__ __forceinline__ void load_token(const MlaCacheStoreArgs& p, int64_t token,
                                           Dims<T>& dims) {
  const T* nope = static_cast<const T*>(p.kv_c) + token * p.kv_c_stride;
  const T* rope = static_cast<const T*>(p.k_pe) + token * p.k_pe_stride - p.nope_dim;
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const int dim = 8 * (turn * kWarp + lane_index());
    dims[turn] = {};
    if (dim < p.nope_dim + kRopeDim)
      dims[turn] = load<8 * sizeof(T), access>((dim < p.nope_dim ? nope : rope) + dim);
  }
}

template <class T>
__device__ __forceinline__ Words<16> rounded(const Vector8<T>& dims) {
  Words<16> pairs;
  if constexpr (sizeof(T) == 2) {
    pairs = dims;
  } else {
    float x[8];
    to_float<T>(dims, x);
    pairs = from_float<bf16>(x);
  }
  if (DSA_FAULT != 510) plain_nan(pairs);
  return pairs;
}

// Writes dims [begin, end), which nothing quantises, to `to`.
template <class T, int access>
__device__ __forceinline__ void store_rounded(const Dims<T>& dims, int begin, int end,
                                              uint8_t* to) {
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const int dim = 8 * (turn * kWarp + lane_index());
    if (dim >= begin && dim < end) store<access>(to + 2 * (dim - begin), rounded<T>(dims[turn]));
  }
}

// Writes the codes of the first nope_dim dims to `to`; returns the scale of the lane's group in
// each turn.
template <class Format, class T, int access>
__device__ __forceinline__ void store_codes(const Dims<T>& dims, bool ue8m0, uint8_t* to,
                                            float (&scales)[2]) {
  constexpr int kLanes = Format::kGroupDim / (DSA_FAULT == 509 ? 16 : 8);
#pragma unroll
  for (int turn = 0; turn < 2; ++turn) {
    float x[8];
    to_float<T>(dims[turn], x);
    const Scale scale(max_of_lanes<kLanes>(max_magnitude(x, kAmaxFloor)), ue8m0);
    const int dim = 8 * (turn * kWarp + lane_index());
    const Words<8> codes = scale.codes(x);
    if (dim < Format::kNopeDim) store<access>(to + dim, codes);
    scales[turn] = scale.scale;
  }
}

template <class Format>
struct Writer;

template <>
struct Writer<V32> {
  template <class T, int access>
  static __device__ __forceinline__ void write(const MlaCacheStoreArgs& p, uint8_t* page,
                                               uint32_t place, const Dims<T>& dims) {
    uint8_t* record = page + int64_t{place} * V32::kRecordBytes;
    float scales[2];
    store_codes<V32, T, access>(dims, p.ue8m0, record, scales);
    Words<16> all;
#pragma unroll
    for (int g = 0; g < V32::kGroups; ++g)
      all.at[g] = __float_as_uint(__shfl_sync(0xffffffff, scales[g / 2], g % 2 * 16));
    if (lane_index() == 0) store<access>(record + V32::kScaleOffset, all);
    store_rounded<T, access>(dims, V32::kNopeDim, V32::kNopeDim + kRopeDim,
                             record + V32::kRopeOffset);
  }
};

template <>
struct Writer<V4> {
  template <class T, int access>
  static __device__ __forceinline__ void write(const MlaCacheStoreArgs& p, uint8_t* page,
                                               uint32_t place, const Dims<T>& dims) {
    uint8_t* record = page + int64_t{place} * V4::kDataBytes;
    float scales[2];
    store_codes<V4, T, access>(dims, true, record, scales);
    store_rounded<T, access>(dims, V4::kNopeDim, V4::kNopeDim + kRopeDim, record + V4::kRopeOffset);
    Words<8> exponents;
#pragma unroll
    for (int turn = 0; turn < 2; ++turn) {
      const int group = 4 * turn + lane_index() / 8;
      const uint32_t byte = group < V4::kGroups ? __float_as_uint(scales[turn]) >> 23 : 0;
      exponents.at[turn] = __reduce_or_sync(0xffffffff, byte << 8 * (group % 4));
    }
    if (lane_index() == 0) {
      uint8_t* plane = page + int64_t{p.pages.size} * V4::kDataBytes;
      store<access>(plane + int64_t{place} * V4::kScaleBytes, exponents);
    }
  }
};

struct BFloat16 {};

template <>
struct Writer<BFloat16> {
  template <class T, int access>
  static __device__ __forceinline__ void write(const MlaCacheStoreArgs& p, uint8_t* page,
                                               uint32_t place, const Dims<T>& dims) {
    const int d_qk = p.nope_dim + kRopeDim;
    store_rounded<T, access>(dims, 0, d_qk, page + int64_t{place} * (2 * d_qk));
  }
};

template <class Format, class T, int access>
__device__ __forceinline__ void mla_cache_store(const MlaCacheStoreArgs& p) {
  const int64_t token = int64_t{blockIdx.x} * (cuda::kLatentThreads / kWarp) + threadIdx.x / kWarp;
  if (token >= p.num_tokens) return;
  const int64_t slot = integer_at(p.slots, p.wide_slots, token);
  if (slot < 0 || slot >= p.capacity) return;
  Dims<T> dims;
  load_token<T, access>(p, token, dims);
  const cuda::Place place = p.pages.place_of(slot);
  Writer<Format>::template write<T, access>(p, p.cache + place.block * p.page_bytes, place.offset,
                                            dims);
}

}  // namespace

#define DSA_KERNEL(name, Format, T, access)                                 \
  extern "C" __global__ void __launch_bounds__(cuda::kLatentThreads)        \
      mla_cache_store_##name(const __grid_constant__ MlaCacheStoreArgs p) { \
    mla_cache_store<Format, T, access>(p);                                  \
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
