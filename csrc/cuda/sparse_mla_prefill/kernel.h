// Arguments of the sparse_mla_prefill kernels. Strides in elements.
#pragma once

#include "../paged_cache.h"

namespace dsa {

constexpr int kPrefillHeads = 64;  // of a CTA
constexpr int kPrefillBlock = 64;  // keys of a step
constexpr int kPrefillThreads = 384;

// Tiles of 64 rows of 128 bytes, at most: of q, of two blocks of keys, and of weights; then three
// values for each of two warpgroups' heads, validity and barriers.
constexpr int kPrefillTiles = 28;
constexpr uint32_t kPrefillSharedBytes =
    kPrefillTiles * 8192 + 3 * 2 * kPrefillHeads * sizeof(float) + 2 * 8 + 8 * sizeof(uint64_t);

struct SparseMlaPrefillArgs {
  const void* q;  // bf16 [num_queries, num_heads, d_qk]
  int64_t q_stride[2];
  const void* kv;  // bf16 [num_kv, d_qk], or null
  int64_t kv_stride, num_kv;
  PagedCache cache;        // where kv is null
  const int32_t* indices;  // [num_queries, topk]
  int64_t indices_stride;
  const int32_t* kv_start;     // [num_queries] or null
  const int32_t* topk_length;  // [num_queries] or null
  const float* attn_sink;      // [num_heads] or null
  void* out;                   // bf16 [num_queries, num_heads, 512]
  int64_t out_stride[2];
  float* max_logits;  // [num_queries, num_heads]
  int64_t max_logits_stride;
  float* lse;  // [num_queries, num_heads]
  int64_t lse_stride;
  float sm_scale;     // its size: where it is negative, q is negated
  float scale_log2;   // sm_scale log2 e, not zero
  float natural[2];   // their sum: sm_scale / scale_log2, which is about ln 2
  bool negate_q;      // sm_scale < 0
  bool q_aligned;     // rows of q begin at multiples of 16 bytes
  bool keys_aligned;  // so do those of kv, or pages
  bool out_aligned;   // so do rows of out
  int32_t num_heads;
  int32_t head_groups;  // of 64 heads
  int32_t topk;
};

}  // namespace dsa
