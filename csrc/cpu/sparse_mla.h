// Attention of one query over its selected keys, for a group of heads; used by prefill and decode.
//
//   for each tile of 64 valid keys, in index order:
//     keys [64, d_qk]   gathered and dequantised once for all heads of the group
//     S    [64, heads]  = keys . Qt, scaled          heads in lanes, so softmax needs no shuffles
//     m, l, P           online softmax, fp32
//     O    [heads, 512] = O * alpha + P^T . keys[:, :512]
//
// Invalid indices are dropped before tiling, so they change no bit of the result. Nothing depends
// on how heads are grouped or on which thread runs a group.
#pragma once

#include "../params.h"
#include "isa/isa.h"
#include "parallel.h"

namespace dsa::cpu {

// Where keys come from: contiguous rows (kv) or a paged cache.
struct KeySource {
  View<2> kv;
  View<3> cache;
  CacheFormat format = CacheFormat::kBFloat16;

  int64_t capacity() const { return kv ? kv.size[0] : cache.size[0] * cache.size[1]; }
  void load(const Isa& isa, int64_t position, int d_qk, float* out) const;
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

// Runs heads [head_begin, head_end) of `query`.
void attend(const AttendQuery& query, int head_begin, int head_end);

// Runs all heads of num_queries queries on all threads; make(i) gives query i. Where queries are
// fewer than threads, heads are split too, at the price of gathering their keys once per group.
template <class MakeQuery>
void attend_all(int64_t num_queries, int num_heads, const MakeQuery& make) {
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t wanted = num_queries == 0 ? 1 : (threads + num_queries - 1) / num_queries;
  const int64_t step = ((num_heads + wanted - 1) / wanted + kLanePad - 1) / kLanePad * kLanePad;
  const int64_t groups = (num_heads + step - 1) / step;
  parallel_items(num_queries * groups, [&](int64_t item) {
    const int64_t begin = item % groups * step;
    const int64_t end = begin + step < num_heads ? begin + step : num_heads;
    attend(make(item / groups), static_cast<int>(begin), static_cast<int>(end));
  });
}

// How many of a row's indices count.
inline int64_t clamped_length(const int32_t* topk_length, int64_t topk) {
  if (topk_length == nullptr) return topk;
  return *topk_length < 0 ? 0 : *topk_length < topk ? *topk_length : topk;
}

}  // namespace dsa::cpu
