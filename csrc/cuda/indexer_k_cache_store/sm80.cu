// The indexer's k: LayerNorm, RoPE, Hadamard, FP8 codes, into the pages of the index cache.
//
// Eight lanes do a token, so a warp four, 16 bytes of bfloat16 a lane and vector. LayerNorm's
// weights come from the L1 cache: kept in registers over many tokens, they would halve the warps of
// an SM.

#include "../device/indexer_row.cuh"
#include "kernel.h"

namespace dsa {
namespace {

using cuda::IndexerKCacheStoreArgs;

constexpr int kCtasPerSm = 5;  // 96 registers

// LayerNorm's weight or bias.
template <int head_dim, int access>
__device__ __forceinline__ IndexerRow<head_dim> load_norm(const void* from, bool wide) {
  IndexerRow<head_dim> row;
#pragma unroll
  for (int v = 0; v < row.kVectors; ++v) {
    if (wide) {
      const auto* norm = static_cast<const float*>(from) + row.dim_of(v);
      to_float<float>(load<sizeof row.x[v], access>(norm), row.x[v]);
    } else {
      const auto* norm = static_cast<const bf16*>(from) + row.dim_of(v);
      to_float<bf16>(load<8 * sizeof(bf16), access>(norm), row.x[v]);
    }
  }
  return row;
}

// This row's token, where `exists`; all lanes of the warp take part.
template <class T, int head_dim, int access>
__device__ __forceinline__ void store_token(const IndexerKCacheStoreArgs& p, int64_t token,
                                            bool exists, float* shared) {
  using Row = IndexerRow<head_dim>;
  const int64_t slot = exists ? integer_at(p.slots, p.wide_slots, token) : -1;
  const bool stored = slot >= 0 && slot < p.capacity + (DSA_FAULT == 512);
  Row row;
#pragma unroll
  for (int v = 0; v < Row::kVectors; ++v) {
    Vector8<T> raw = {};
    if (stored) {
      const T* k = static_cast<const T*>(p.k) + token * p.k_stride;
      raw = load<8 * sizeof(T), access>(k + Row::dim_of(v));
    }
    to_float<T>(raw, row.x[v]);
  }
  Rope<head_dim> rope;
  rope.find(p.input, token, stored);
  if (p.norm_weight != nullptr) {
    row.layer_norm(load_norm<head_dim, access>(p.norm_weight, p.wide_norm_weight),
                   load_norm<head_dim, access>(p.norm_bias, p.wide_norm_bias), p.norm_eps);
    if (DSA_FAULT != 511) row.template round<T>();
  }
  rope.template load<access>(p.input);
  rope.template apply<T>(p.input, row, shared);
  if (p.input.hadamard) {
    row.hadamard();
    row.template round<T>();
  }
  const cuda::Place place = p.pages.place_of(stored ? slot : 0);
  uint8_t* page = p.cache + place.block * p.page_bytes;
  uint8_t* codes = page + int64_t{place.offset} * head_dim;
  const float scale = row.template quantize<access>(p.input.ue8m0, stored, codes);
  if (stored && lane_in_row() == 0) {
    uint8_t* scales = page + int64_t{p.pages.size} * head_dim;
    store<access>(scales + int64_t{place.offset} * kIndexScaleBytes,
                  Words<4>{rope.invalid(p.input) ? 0x7fc00000 : __float_as_uint(scale)});
  }
}

template <class T, int head_dim, int access>
__device__ __forceinline__ void indexer_k_cache_store(const IndexerKCacheStoreArgs& p) {
  extern __shared__ float shared[];
  constexpr int kRows = cuda::kStoreThreads / kLanesPerRow;
  const int64_t token = int64_t{blockIdx.x} * kRows + threadIdx.x / kLanesPerRow;
  store_token<T, head_dim, access>(p, token, token < p.num_tokens,
                                   shared + threadIdx.x / kWarp * kRowsPerWarp * head_dim);
}

}  // namespace

#define DSA_KERNEL(name, T, head_dim, access)                                          \
  extern "C" __global__ void __launch_bounds__(cuda::kStoreThreads, kCtasPerSm)        \
      indexer_k_cache_store_##name(const __grid_constant__ IndexerKCacheStoreArgs p) { \
    indexer_k_cache_store<T, head_dim, access>(p);                                     \
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
