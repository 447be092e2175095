// Arguments of the sparse_mla_decode kernels. Strides in elements.
#pragma once

#include "../paged_cache.h"

namespace dsa {

constexpr int kDecodeHeads = 64;        // of a CTA, heads as rows
constexpr int kDecodeNarrowHeads = 32;  // or, at most, as columns
constexpr int kDecodeBlock = 64;        // keys of a step
constexpr int kDecodeThreads = 384;

// Tiles of 64 rows of 128 bytes: of q, and of two blocks of keys, 9 each; then maxima, sums,
// validity and barriers.
constexpr uint32_t decode_shared_bytes(int d_qk) {
  const uint32_t tiles = d_qk / 64 + 2 * 9;
  return tiles * 8192 + (4 * 64 + 8 * kDecodeNarrowHeads) * sizeof(float) + 2 * 8 +
         8 * sizeof(uint64_t);
}

struct SparseMlaDecodeScope {
  PagedCache cache;
  const int32_t* indices;  // [batch, next_n, topk]
  int64_t indices_stride[2];
  const int32_t* lengths;  // [batch, next_n], or null: topk
  int64_t lengths_stride[2];
  int32_t topk;  // 0 where there is no such scope
};

struct SparseMlaDecodeArgs {
  const void* q;  // bf16 [batch, next_n, num_heads, d_qk]
  int64_t q_stride[3];
  SparseMlaDecodeScope scopes[2];
  const float* attn_sink;  // [num_heads] or null
  void* out;               // bf16 [batch, next_n, num_heads, 512]
  int64_t out_stride[3];
  float* lse;  // [batch, next_n, num_heads]
  int64_t lse_stride[3];
  float scale_log2;     // |sm_scale| log2 e, not zero
  bool negative_scale;  // sm_scale < 0
  bool q_aligned;       // rows of q begin at multiples of 16 bytes
  bool out_aligned;     // rows of out begin at multiples of 8 bytes
  int32_t num_heads, next_n;
  int32_t head_groups;       // of 64 heads
  int32_t splits;            // of a query token's keys, a CTA or a pair of a cluster each
  int32_t blocks_per_split;  // 64 keys each; 0: the row's own, divided evenly
};

}  // namespace dsa
