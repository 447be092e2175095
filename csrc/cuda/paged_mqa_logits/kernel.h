// Arguments of paged_mqa_logits' kernels. Strides in elements, of the cache in bytes.
#pragma once

#include <cstdint>

#include "../divider.h"

namespace dsa {

struct PagedMqaLogitsArgs {
  const void* q;           // e4m3 [batch, next_n, heads, dim]
  const uint8_t* cache;    // [num_pages, page_size, dim + 4], planar pages
  const float* weights;    // [batch * next_n, heads]
  const int* seq_lens;     // [batch, next_n]
  const int* block_table;  // [batch, max_pages]
  void* out;               // float | bf16 [batch * next_n, max_seq_len]
  int64_t q_batch_stride, q_token_stride, q_head_stride, page_stride, weights_stride;
  int64_t lens_batch_stride, lens_token_stride, table_stride, out_stride;
  int64_t addressable;  // page_size * max_pages, at most 2^31 - 1
  int batch, next_n, num_pages, page_size, max_pages, max_seq_len;
  cuda::Divider by_page_size;
  cuda::Divider by_blocks;  // of query tokens of a request
  int min_keys;             // rows with fewer keys are not scored
  bool fill, out_bf16;
  bool map_q, map_pages;  // tensor maps can describe them
};

}  // namespace dsa
