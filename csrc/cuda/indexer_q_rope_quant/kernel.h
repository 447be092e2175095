// Arguments of the kernels of indexer_q_rope_quant.
#pragma once

#include "../divider.h"
#include "../indexer_input.h"

namespace dsa::cuda {

struct IndexerQRopeQuantArgs {
  const void* q;        // bfloat16 | float32 [num_tokens, num_heads, head_dim]
  const void* weights;  // bfloat16 | float32 [num_tokens, num_heads]
  uint8_t* q_out;       // float8_e4m3fn [num_tokens, num_heads, head_dim]
  float* weights_out;   // [num_tokens, num_heads]
  int64_t num_tokens, num_heads;
  Blocks chunks;  // of 16 heads, of a token
  int64_t q_token_stride, q_head_stride;
  int64_t weights_stride, weights_out_stride;  // from token to token
  int64_t q_out_token_stride, q_out_head_stride;
  bool wide_weights;  // float32
  float weights_scale;
  IndexerInput input;
};

constexpr int kQuantThreads = 128;
constexpr int kHeadsPerWarp = 16;

}  // namespace dsa::cuda
