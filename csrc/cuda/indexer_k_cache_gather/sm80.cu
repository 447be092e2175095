// Pages of the index cache -> contiguous codes and scales.
//
// A warp copies 16 rows of 128 codes, or 32 of 64, in four turns of 512 bytes: 16 bytes a lane, so
// 8 or 4 lanes a row. It looks the rows up together, a row a lane, and copies a scale a lane.

#include "../../formats.h"
#include "../device/paged_rows.cuh"
#include "kernel.h"

namespace dsa {
namespace {

using cuda::IndexerKCacheGatherArgs;

// Rows [first, first + gather_rows), as far as there are and somebody claims them.
template <int head_dim, int access>
__device__ __forceinline__ void gather_rows(const IndexerKCacheGatherArgs& p, int32_t first) {
  constexpr int kRows = cuda::gather_rows(head_dim), kLanes = head_dim / 16;
  const int rows = min(kRows, p.rows.num_rows - first);
  const Source mine = find_source(p.rows, first, rows);
  const int column = lane_index() % kLanes * 16;
  Words<16> codes[cuda::kGatherVectors];
  bool claimed[cuda::kGatherVectors];
#pragma unroll
  for (int i = 0; i < cuda::kGatherVectors; ++i) {
    const Source source = source_of(mine, (i * kWarp + lane_index()) / kLanes);
    claimed[i] = source.page != Source::kUnclaimed;
    codes[i] = {};
    if (source.page >= 0) {
      const uint8_t* page = p.cache + source.page * p.page_bytes;
      codes[i] = load<16, access>(page + int64_t{source.token} * head_dim + column);
    }
  }
  Words<4> scale = {};
  if (mine.page >= 0) {
    const uint8_t* page = p.cache + mine.page * p.page_bytes;
    const uint8_t* plane = page + int64_t{p.rows.pages.size} * head_dim;
    scale = load<4, access>(plane + int64_t{mine.token} * kIndexScaleBytes);
  }
#pragma unroll
  for (int i = 0; i < cuda::kGatherVectors; ++i) {
    const int64_t row = first + (i * kWarp + lane_index()) / kLanes;
    if (claimed[i] || DSA_FAULT == 507)
      store<access>(p.k_out + row * p.k_stride + column, codes[i]);
  }
  if (mine.page != Source::kUnclaimed)
    p.scale_out[first + lane_index()] = __uint_as_float(scale.at[0]);
}

template <int head_dim, int access>
__device__ __forceinline__ void indexer_k_cache_gather(const IndexerKCacheGatherArgs& p) {
  constexpr int kRows = cuda::gather_rows(head_dim), kWarps = cuda::kGatherThreads / kWarp;
  const int64_t first = (int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp) * kRows;
  if (first < p.rows.num_rows) gather_rows<head_dim, access>(p, static_cast<int32_t>(first));
}

}  // namespace

#define DSA_KERNEL(name, head_dim, access)                                               \
  extern "C" __global__ void __launch_bounds__(cuda::kGatherThreads)                     \
      indexer_k_cache_gather_##name(const __grid_constant__ IndexerKCacheGatherArgs p) { \
    indexer_k_cache_gather<head_dim, access>(p);                                         \
  }

DSA_KERNEL(64, 64, 16)
DSA_KERNEL(128, 128, 16)
DSA_KERNEL(64_unaligned, 64, 1)
DSA_KERNEL(128_unaligned, 128, 1)

}  // namespace dsa
