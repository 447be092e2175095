// The indexer's k: LayerNorm, RoPE, Hadamard, FP8 codes, into the pages of the index cache.
//
// Eight lanes do a token, so a warp four, 16 bytes of bfloat16 a lane and vector. Warps take tokens
// until there are no more, which loads LayerNorm's weights once.

#include "../device/indexer_row.cuh"
#include "kernel.h"

namespace dsa {
namespace {

using cuda::IndexerKCacheStoreArgs;

template <int head_dim>
struct Norm {
  IndexerRow<head_dim> weight, bias;

  __device__ __forceinline__ explicit Norm(const IndexerKCacheStoreArgs& p) {
    if (p.norm_weight == nullptr) return;
    load_row(p.norm_weight, p.wide_norm_weight, weight);
    load_row(p.norm_bias, p.wide_norm_bias, bias);
  }

 private:
  static __device__ __forceinline__ void load_row(const void* from, bool wide,
                                                  IndexerRow<head_dim>& row) {
#pragma unroll
    for (int v = 0; v < row.kVectors; ++v)
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const int dim = row.dim_of(v) + e;
        row.x[v][e] = wide ? __ldg(static_cast<const float*>(from) + dim)
                           : __bfloat162float(__ldg(static_cast<const bf16*>(from) + dim));
      }
  }
};

// This row's token, where `exists`; all lanes of the warp take part.
template <class T, int head_dim, int access>
__device__ __forceinline__ void store_token(const IndexerKCacheStoreArgs& p, int64_t token,
                                            bool exists, const Norm<head_dim>& norm,
                                            float* shared) {
  using Row = IndexerRow<head_dim>;
  const int64_t slot = exists ? integer_at(p.slots, p.wide_slots, token) : -1;
  const bool stored = slot >= 0 && slot < p.capacity;
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
  rope.template load<access>(p.input, token, stored);
  if (p.norm_weight != nullptr) {
    row.layer_norm(norm.weight, norm.bias, p.norm_eps);
    row.template round<T>();
  }
  rope.template apply<T>(p.input, row, shared);
  if (p.input.hadamard) {
    row.hadamard();
    row.template round<T>();
  }
  const int64_t page = stored ? p.page_size.page_of(slot) : 0;
  const int64_t place = slot - page * p.page_size.tokens;
  uint8_t* codes = p.cache + page * p.page_bytes + place * head_dim;
  const float scale = row.template quantize<access>(p.input.ue8m0, stored, codes);
  if (stored && lane_in_row() == 0) {
    const bool invalid = p.input.rope_dim != 0 && rope.table == nullptr;
    uint8_t* scales = p.cache + page * p.page_bytes + p.page_size.tokens * head_dim;
    store<access>(scales + place * kIndexScaleBytes,
                  Words<4>{invalid ? 0x7fc00000 : __float_as_uint(scale)});
  }
}

template <class T, int head_dim, int access>
__device__ __forceinline__ void indexer_k_cache_store(const IndexerKCacheStoreArgs& p) {
  extern __shared__ float shared[];
  constexpr int kRows = cuda::kStoreThreads / kLanesPerRow;
  const int warp = threadIdx.x / kWarp, row_of_warp = lane_index() / kLanesPerRow;
  const Norm<head_dim> norm(p);
  for (int64_t first = int64_t{blockIdx.x} * kRows + warp * kRowsPerWarp; first < p.num_tokens;
       first += int64_t{gridDim.x} * kRows) {
    const int64_t token = first + row_of_warp;
    store_token<T, head_dim, access>(p, token, token < p.num_tokens, norm,
                                     shared + warp * kRowsPerWarp * head_dim);
  }
}

}  // namespace

#define DSA_KERNEL(name, T, head_dim, access)                                          \
  extern "C" __global__ void __launch_bounds__(cuda::kStoreThreads)                    \
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
