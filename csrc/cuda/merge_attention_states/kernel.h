// Arguments of the kernels of merge_attention_states.
#pragma once

#include "../divider.h"

namespace dsa::cuda {

struct MergeAttentionStatesArgs {
  const void* outs;        // bfloat16 | float32 [num_parts, num_rows, num_heads, d_v]
  const float* lses;       // [num_parts, num_rows, num_heads]
  const float* attn_sink;  // [num_heads] or null
  void* out;               // bfloat16 | float32 [num_rows, num_heads, d_v]
  float* lse;              // [num_rows, num_heads]
  int64_t num_parts, num_rows, d_v;
  Blocks heads;  // of a row
  int64_t outs_part_stride, outs_row_stride, outs_head_stride;
  int64_t lses_part_stride, lses_row_stride, lses_head_stride;
  int64_t out_row_stride, out_head_stride;
  int64_t lse_row_stride, lse_head_stride;
};

constexpr int kMergeThreads = 128;

}  // namespace dsa::cuda
