// Arguments of the kernels of mla_cache_gather.
#pragma once

#include "../paged_rows.h"

namespace dsa::cuda {

struct MlaCacheGatherArgs {
  PagedRows rows;
  const uint8_t* cache;  // [num_pages | page_size, record]
  int64_t page_bytes;    // from page to page
  void* out;             // bfloat16 | float32 [num_tokens, d_qk]
  int64_t out_stride;
  int32_t d_qk;
};

constexpr int kLatentGatherThreads = 128;
constexpr int kLatentGatherRows = 4;  // of a warp

}  // namespace dsa::cuda
