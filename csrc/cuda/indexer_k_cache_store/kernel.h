// Arguments of the kernels of indexer_k_cache_store.
#pragma once

#include "../divider.h"
#include "../indexer_input.h"

namespace dsa::cuda {

struct IndexerKCacheStoreArgs {
  const void* k;            // bfloat16 | float32 [num_tokens, head_dim]
  const void* slots;        // int32 | int64 [num_tokens]
  const void* norm_weight;  // float32 | bfloat16 [head_dim], null without LayerNorm
  const void* norm_bias;    // float32 | bfloat16 [head_dim]
  uint8_t* cache;           // [num_pages | page_size, head_dim + 4], planar pages
  int64_t num_tokens, k_stride;
  int64_t capacity, page_bytes;           // from page to page
  Blocks pages;                           // of page_size tokens
  bool wide_slots;                        // int64
  bool wide_norm_weight, wide_norm_bias;  // float32
  float norm_eps;
  IndexerInput input;
};

constexpr int kStoreThreads = 128;

}  // namespace dsa::cuda
