// One plain struct per op: what a launcher, on any device, needs to know. No torch here.
#pragma once

#include <cstdint>

#include "formats.h"

namespace dsa {

enum class DType : int8_t { kFloat32, kBFloat16, kFloat8E4M3, kUInt8, kInt32, kInt64 };

constexpr int64_t element_size(DType dtype) {
  switch (dtype) {
    case DType::kFloat8E4M3:
    case DType::kUInt8: return 1;
    case DType::kBFloat16: return 2;
    case DType::kFloat32:
    case DType::kInt32: return 4;
    case DType::kInt64: return 8;
  }
  return 0;
}

inline void* advance(const void* data, DType dtype, int64_t elements) {
  return static_cast<char*>(const_cast<void*>(data)) + elements * element_size(dtype);
}

// A strided tensor. Strides are in elements; data is null where an optional tensor is absent.
template <int N>
struct View {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t size[N] = {};
  int64_t stride[N] = {};

  explicit operator bool() const { return data != nullptr; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

// Entries [first, first + count) of dim 0; an absent view stays absent.
template <int N>
View<N> slice(View<N> v, int64_t first, int64_t count) {
  if (v) {
    v.data = advance(v.data, v.dtype, first * v.stride[0]);
    v.size[0] = count;
  }
  return v;
}

// [start, end) of a row after clamping into [0, limit); start >= end means empty.
struct Range {
  int64_t start, end;
  int64_t size() const { return end > start ? end - start : 0; }
};

enum class RopeLayout : int8_t { kNone, kNeox, kInterleaved };

// How the indexer's q and k are rotated before they are quantised.
struct IndexerInputParams {
  RopeLayout rope_layout;
  View<1> positions;  // int32 | int64 [num_tokens], absent without RoPE
  View<2> cos_sin;    // float32 [max_position, rope_dim], absent without RoPE
  bool hadamard;
  bool ue8m0;  // scales are powers of two
};

struct IndexerQRopeQuantParams {
  View<3> q;        // bfloat16 | float32 [num_tokens, num_heads, head_dim]
  View<2> weights;  // bfloat16 | float32 [num_tokens, num_heads]
  IndexerInputParams input;
  float weights_scale;
  View<3> q_out;        // float8_e4m3fn [num_tokens, num_heads, head_dim]
  View<2> weights_out;  // float32 [num_tokens, num_heads]
};

struct IndexerKCacheStoreParams {
  View<2> k;            // bfloat16 | float32 [num_tokens, head_dim]
  View<1> slots;        // int32 | int64 [num_tokens]
  View<1> norm_weight;  // float32 | bfloat16 [head_dim] or absent
  View<1> norm_bias;    // float32 | bfloat16 [head_dim] or absent
  float norm_eps;
  IndexerInputParams input;
  View<3> cache;  // uint8 [num_pages, page_size, head_dim+4]
};

struct IndexerKCacheGatherParams {
  View<3> cache;        // uint8 [num_pages, page_size, head_dim+4]
  View<2> block_table;  // int32 [batch, max_pages]
  View<1> cu_seq_lens;  // int32 [batch+1]
  View<1> seq_start;    // int32 [batch] or absent
  View<2> k_out;        // float8_e4m3fn [num_tokens, head_dim]
  View<1> scale_out;    // float32 [num_tokens]
};

struct IndicesToSlotsParams {
  View<2> indices;      // int32 [num_rows, topk]
  View<2> block_table;  // int32 [batch, max_pages]
  View<1> row_request;  // int32 [num_rows], or absent: num_rows / batch rows per request
  int64_t page_size;
  View<2> slots;   // int32 [num_rows, topk]
  View<1> counts;  // int32 [num_rows]
};

struct MergeAttentionStatesParams {
  View<4> outs;       // bfloat16 | float32 [num_parts, num_rows, num_heads, d_v]
  View<3> lses;       // float32 [num_parts, num_rows, num_heads]
  View<1> attn_sink;  // float32 [num_heads] or absent
  View<3> out;        // bfloat16 | float32 [num_rows, num_heads, d_v]
  View<2> lse;        // float32 [num_rows, num_heads]
};

struct MlaCacheStoreParams {
  View<2> kv_c;        // bfloat16 | float32 [num_tokens, nope_dim]
  View<2> k_pe;        // kv_c's dtype [num_tokens, 64]
  View<1> slots;       // int32 | int64 [num_tokens]
  CacheFormat format;  // of cache
  bool ue8m0;          // scales are powers of two
  View<3> cache;       // uint8 | bfloat16 [num_pages, page_size, record]
};

struct MlaCacheGatherParams {
  View<3> cache;        // uint8 | bfloat16 [num_pages, page_size, record]
  CacheFormat format;   // of cache
  View<2> block_table;  // int32 [batch, max_pages]
  View<1> cu_seq_lens;  // int32 [batch+1]
  View<1> seq_start;    // int32 [batch] or absent
  View<2> out;          // bfloat16 | float32 [num_tokens, d_qk]
};

struct MqaLogitsParams {
  View<3> q;          // float8_e4m3fn | bfloat16 | float32 [num_rows, num_heads, head_dim]
  View<2> k;          // q's dtype [seq_len, head_dim]
  View<2> weights;    // float32 [num_rows, num_heads]
  View<1> k_scale;    // float32 [seq_len] or absent
  View<1> row_start;  // int32 [num_rows] or absent
  View<1> row_end;    // int32 [num_rows] or absent
  bool compressed;    // column 0 is row_start
  bool fill;          // columns without a key become -inf
  View<2> out;        // float32 | bfloat16 [num_rows, width]
};

struct IndexerTopkParams {
  MqaLogitsParams score;  // all but out
  int64_t topk;
  View<1> workspace;  // uint8 [workspace_bytes], at least one row of float32 logits
  View<2> out;        // int32 [num_rows, topk]
};

struct PagedMqaLogitsParams {
  View<4> q;            // float8_e4m3fn [batch, next_n, num_heads, head_dim]
  View<3> cache;        // uint8 [num_pages, page_size, head_dim + 4], planar pages
  View<2> weights;      // float32 [batch * next_n, num_heads]
  View<2> seq_lens;     // int32 [batch, next_n], keys that each query token sees
  View<2> block_table;  // int32 [batch, max_pages]
  bool fill;            // columns without a key become -inf
  View<2> out;          // float32 | bfloat16 [batch * next_n, max_seq_len]
};

struct PagedIndexerTopkParams {
  PagedMqaLogitsParams score;  // all but fill and out
  int64_t topk, max_seq_len;
  View<1> workspace;  // uint8 [workspace_bytes], at least next_n rows of float32 logits
  View<2> out;        // int32 [batch * next_n, topk]
};

struct TopkIndicesParams {
  View<2> scores;     // float32 [num_rows, seq_len]
  View<1> row_start;  // int32 [num_rows] or absent
  View<1> row_end;    // int32 [num_rows] or absent
  int64_t topk;
  View<2> out;  // int32 [num_rows, topk]
};

struct SparseMlaPrefillParams {
  View<3> q;      // bfloat16 | float32 [num_queries, num_heads, d_qk]
  View<2> kv;     // q's dtype [num_kv, d_qk], or absent
  View<3> cache;  // uint8 | bfloat16 [num_pages, page_size, record], where kv is absent
  CacheFormat format = CacheFormat::kBFloat16;  // of cache, or kv
  View<2> indices;                              // int32 [num_queries, topk]
  View<1> kv_start;                             // int32 [num_queries] or absent
  View<1> topk_length;                          // int32 [num_queries] or absent
  View<1> attn_sink;                            // float32 [num_heads] or absent
  float sm_scale;
  View<3> out;         // q's dtype [num_queries, num_heads, 512]
  View<2> max_logits;  // float32 [num_queries, num_heads]
  View<2> lse;         // float32 [num_queries, num_heads]
};

struct SparseMlaDecodeParams {
  View<4> q;                  // bfloat16 | float32 [batch, next_n, num_heads, d_qk]
  View<3> cache;              // uint8 | bfloat16 [num_pages, page_size, record]
  View<3> indices;            // int32 [batch, next_n, topk]
  View<2> topk_length;        // int32 [batch, next_n] or absent
  View<1> attn_sink;          // float32 [num_heads] or absent
  View<3> extra_cache;        // as cache, own page size, or absent
  View<3> extra_indices;      // int32 [batch, next_n, extra_topk] or absent
  View<2> extra_topk_length;  // int32 [batch, next_n] or absent
  CacheFormat format;         // of both caches
  float sm_scale;
  bool batch_invariant;  // the CPU always is
  View<4> out;           // q's dtype [batch, next_n, num_heads, 512]
  View<3> lse;           // float32 [batch, next_n, num_heads]
};

inline Range row_range(const View<1>& row_start, const View<1>& row_end, int64_t row,
                       int64_t limit) {
  int64_t start = row_start ? row_start.as<const int32_t>()[row] : 0;
  int64_t end = row_end ? row_end.as<const int32_t>()[row] : limit;
  return {start < 0 ? 0 : start, end > limit ? limit : end};
}

}  // namespace dsa
