// Sparse MLA of ragged queries over contiguous kv or a paged cache; the arithmetic is sparse_mla.h.

#include "convert.h"
#include "ops.h"
#include "sparse_mla.h"

namespace dsa::cpu {

void sparse_mla_prefill(const SparseMlaPrefillParams& p) {
  const KeySource source{p.kv, p.cache, p.format};
  attend_all(p.q.size[0], static_cast<int>(p.q.size[1]), p.indices.size[1], [&](int64_t row) {
    AttendQuery query;
    query.q = advance(p.q.data, p.q.dtype, row * p.q.stride[0]);
    query.q_stride = p.q.stride[1];
    query.dtype = p.q.dtype;
    query.d_qk = static_cast<int>(p.q.size[2]);
    query.sm_scale = p.sm_scale;
    query.attn_sink = p.attn_sink.as<const float>();
    const int32_t* length = p.topk_length ? p.topk_length.as<const int32_t>() + row : nullptr;
    query.selections[0] = {&source, p.indices.as<const int32_t>() + row * p.indices.stride[0],
                           clamped_length(length, p.indices.size[1]),
                           p.kv_start ? p.kv_start.as<const int32_t>()[row] : 0};
    query.num_selections = 1;
    query.out = advance(p.out.data, p.out.dtype, row * p.out.stride[0]);
    query.out_stride = p.out.stride[1];
    query.max_logits = p.max_logits.as<float>() + row * p.max_logits.stride[0];
    query.lse = p.lse.as<float>() + row * p.lse.stride[0];
    return query;
  });
}

}  // namespace dsa::cpu
