// Arguments of mqa_logits' kernels. Strides in elements.
#pragma once

#include <cstdint>

namespace dsa {

struct MqaLogitsArgs {
  const void* q;         // e4m3 | bf16 [num_rows, heads, dim]
  const void* k;         // q's type [seq_len, dim]
  const float* weights;  // [num_rows, heads]
  const float* k_scale;  // [seq_len] or null
  const int* row_start;  // [num_rows] or null
  const int* row_end;    // [num_rows] or null
  void* out;             // float | bf16 [num_rows, width]
  int64_t q_row_stride, q_head_stride, k_stride, weights_stride, out_stride;
  int num_rows, seq_len, width;
  int min_keys;  // rows with fewer keys are not scored
  bool compressed, fill, out_bf16;
  bool map_q, map_k, map_scale;  // tensor maps can describe them
};

// Query tokens of a block: 256 columns of products.
constexpr int mqa_logits_queries(int heads) {
  return 256 / heads;
}

}  // namespace dsa
