// Attention of one query over its selected keys; used by prefill and decode.
//
//   the valid keys of all scopes, in index order, in splits of 512; for each tile of 128 of a
//   split:
//     keys [128, d_qk]  dequantised once for all heads, or read where they lie
//     S    [128, heads] = keys . Qt, scaled          heads in lanes, so softmax needs no shuffles
//     m, l, P           online softmax, fp32
//     O    [heads, 512] = O * alpha + P^T . keys[:, :512]
//   splits are merged in index order
//
// Invalid indices are dropped before splitting, so they change no bit of the result. Nothing
// depends on which thread runs a split, or on how heads are grouped.
#pragma once

#include <functional>

#include "../params.h"

namespace dsa::cpu {

// Where keys come from: contiguous rows (kv) or a paged cache.
struct KeySource {
  View<2> kv;
  View<3> cache;
  CacheFormat format = CacheFormat::kBFloat16;

  int64_t capacity() const { return kv ? kv.size[0] : cache.size[0] * cache.size[1]; }
};

// One query's selection in one source; `length` is already clamped into [0, topk].
struct Selection {
  const KeySource* source;
  const int32_t* indices;
  int64_t length;
  int64_t start;  // position that index 0 means
};

struct AttendQuery {
  const void* q;  // [num_heads, d_qk]
  int64_t q_stride;
  DType dtype;  // of q and out
  int d_qk;
  float sm_scale;
  const float* attn_sink;  // [num_heads] or null
  Selection selections[2];
  int num_selections;
  void* out;  // [num_heads, 512]
  int64_t out_stride;
  float* max_logits;  // [num_heads] or null
  float* lse;         // [num_heads]
};

// Runs num_queries queries on all threads; make(i) gives query i, which selects at most max_keys.
void attend_all(int64_t num_queries, int num_heads, int64_t max_keys,
                const std::function<AttendQuery(int64_t)>& make);

// How many of a row's indices count.
inline int64_t clamped_length(const int32_t* topk_length, int64_t topk) {
  if (topk_length == nullptr) return topk;
  return *topk_length < 0 ? 0 : *topk_length < topk ? *topk_length : topk;
}

}  // namespace dsa::cpu
