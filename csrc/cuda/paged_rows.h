// Rows of a gather and where requests' keys lie, as kernels see them.
#pragma once

#include <algorithm>

#include "../params.h"
#include "divider.h"

namespace dsa::cuda {

struct PagedRows {
  const int32_t* block_table;  // [batch, max_pages]
  const int32_t* cu_seq_lens;  // [batch+1]
  const int32_t* seq_start;    // [batch] or null
  int64_t batch, block_table_stride;
  int64_t capacity;   // of a request: max_pages * page_size
  int64_t num_pages;  // of the cache
  Blocks pages;       // of page_size tokens
  int32_t num_rows;   // that cu_seq_lens, int32, may name
};

inline PagedRows paged_rows(const View<2>& block_table, const View<1>& cu_seq_lens,
                            const View<1>& seq_start, int64_t num_tokens, const View<3>& cache) {
  return {
      .block_table = block_table.as<const int32_t>(),
      .cu_seq_lens = cu_seq_lens.as<const int32_t>(),
      .seq_start = seq_start.as<const int32_t>(),
      .batch = block_table.size[0],
      .block_table_stride = block_table.stride[0],
      .capacity = block_table.size[1] * cache.size[1],
      .num_pages = cache.size[0],
      .pages = Blocks::of(cache.size[1]),
      .num_rows = static_cast<int32_t>(std::min<int64_t>(num_tokens, INT32_MAX)),
  };
}

}  // namespace dsa::cuda
