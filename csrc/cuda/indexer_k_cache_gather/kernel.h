// Arguments of the kernels of indexer_k_cache_gather.
#pragma once

#include "../paged_rows.h"

namespace dsa::cuda {

struct IndexerKCacheGatherArgs {
  PagedRows rows;
  const uint8_t* cache;  // [num_pages | page_size, head_dim + 4], planar pages
  int64_t page_bytes;    // from page to page
  uint8_t* k_out;        // float8_e4m3fn [num_tokens, head_dim]
  int64_t k_stride;
  float* scale_out;  // [num_tokens]
};

constexpr int kGatherThreads = 128;
constexpr int kGatherVectors = 4;  // of 16 bytes, that a lane has in flight

// Rows of a warp.
constexpr int gather_rows(int head_dim) {
  return kGatherVectors * 32 * 16 / head_dim;
}

}  // namespace dsa::cuda
