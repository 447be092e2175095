// Sparse MLA over paged caches, with an optional second scope; the arithmetic is sparse_mla.h.

#include "convert.h"
#include "ops.h"
#include "sparse_mla.h"

namespace dsa::cpu {

void sparse_mla_decode(const SparseMlaDecodeParams& p) {
  const KeySource source{{}, p.cache, p.format}, extra{{}, p.extra_cache, p.format};
  const int64_t next_n = p.q.size[1];

  const auto select = [](const KeySource& from, const View<3>& indices, const View<2>& lengths,
                         int64_t b, int64_t n) {
    const int32_t* length =
        lengths ? lengths.as<const int32_t>() + b * lengths.stride[0] + n * lengths.stride[1]
                : nullptr;
    return Selection{&from,
                     indices.as<const int32_t>() + b * indices.stride[0] + n * indices.stride[1],
                     clamped_length(length, indices.size[2]), 0};
  };

  const int64_t max_keys = p.indices.size[2] + (p.extra_cache ? p.extra_indices.size[2] : 0);
  attend_all(p.q.size[0] * next_n, static_cast<int>(p.q.size[2]), max_keys, [&](int64_t row) {
    const int64_t b = row / next_n, n = row % next_n;
    AttendQuery query;
    query.q = advance(p.q.data, p.q.dtype, b * p.q.stride[0] + n * p.q.stride[1]);
    query.q_stride = p.q.stride[2];
    query.dtype = p.q.dtype;
    query.d_qk = static_cast<int>(p.q.size[3]);
    query.sm_scale = p.sm_scale;
    query.attn_sink = p.attn_sink.as<const float>();
    query.selections[0] = select(source, p.indices, p.topk_length, b, n);
    query.num_selections = 1;
    if (p.extra_cache) {
      query.selections[1] = select(extra, p.extra_indices, p.extra_topk_length, b, n);
      query.num_selections = 2;
    }
    query.out = advance(p.out.data, p.out.dtype, b * p.out.stride[0] + n * p.out.stride[1]);
    query.out_stride = p.out.stride[2];
    query.max_logits = nullptr;
    query.lse = p.lse.as<float>() + b * p.lse.stride[0] + n * p.lse.stride[1];
    return query;
  });
}

}  // namespace dsa::cpu
