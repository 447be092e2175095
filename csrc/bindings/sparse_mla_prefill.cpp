#include "../cpu/ops.h"
#include "mla_cache.h"

namespace dsa {

void sparse_mla_prefill(const Tensor& q, const std::optional<Tensor>& kv,
                        const std::optional<Tensor>& cache, const Tensor& indices,
                        const std::optional<Tensor>& kv_start,
                        const std::optional<Tensor>& topk_length,
                        const std::optional<Tensor>& attn_sink, double sm_scale,
                        const std::string& cache_format, Tensor out, Tensor max_logits,
                        Tensor lse) {
  const char* op = "sparse_mla_prefill";
  SparseMlaPrefillParams p;
  p.q = view<3>(op, "q", q, {{DType::kBFloat16, DType::kFloat32}, {-1, -1, -1}});
  const int64_t num_queries = p.q.size[0], num_heads = p.q.size[1], d_qk = p.q.size[2];
  STD_TORCH_CHECK(d_qk == 576 || d_qk == 512, op, ": d_qk must be 576 or 512; got ", d_qk, ".");
  STD_TORCH_CHECK(kv.has_value() != cache.has_value(), op, ": give exactly one of kv and cache.");
  if (kv.has_value()) {
    p.kv = view<2>(op, "kv", *kv, {{p.q.dtype}, {-1, d_qk}});
  } else {
    p.cache = mla_cache_view(op, "cache", *cache, cache_format, d_qk, &p.format);
    STD_TORCH_CHECK(!kv_start.has_value(), op, ": kv_start must be None with a paged cache.");
  }
  p.indices = view<2>(op, "indices", indices, {{DType::kInt32}, {num_queries, -1}});
  p.kv_start = view<1>(op, "kv_start", kv_start, {{DType::kInt32}, {num_queries}});
  p.topk_length = view<1>(op, "topk_length", topk_length, {{DType::kInt32}, {num_queries}});
  p.attn_sink = view<1>(op, "attn_sink", attn_sink, {{DType::kFloat32}, {num_heads}});
  p.sm_scale = static_cast<float>(sm_scale);
  p.out = view<3>(op, "out", out, {{p.q.dtype}, {num_queries, num_heads, kValueDim}});
  p.max_logits =
      view<2>(op, "max_logits", max_logits, {{DType::kFloat32}, {num_queries, num_heads}});
  p.lse = view<2>(op, "lse", lse, {{DType::kFloat32}, {num_queries, num_heads}});
  cpu::sparse_mla_prefill(p);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("sparse_mla_prefill", TORCH_BOX(&sparse_mla_prefill));
}

}  // namespace dsa
