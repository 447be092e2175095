// Arguments of the kernels of mla_cache_store.
#pragma once

#include "../../formats.h"
#include "../divider.h"

namespace dsa::cuda {

struct MlaCacheStoreArgs {
  const void* kv_c;   // bfloat16 | float32 [num_tokens, nope_dim]
  const void* k_pe;   // kv_c's dtype [num_tokens, 64]
  const void* slots;  // int32 | int64 [num_tokens]
  uint8_t* cache;     // [num_pages | page_size, record]
  int64_t num_tokens, kv_c_stride, k_pe_stride;
  int64_t capacity, page_bytes;  // from page to page
  Blocks pages;                  // of page_size tokens
  int32_t nope_dim;
  bool wide_slots;  // int64
  bool ue8m0;
};

constexpr int kLatentThreads = 128;

}  // namespace dsa::cuda
