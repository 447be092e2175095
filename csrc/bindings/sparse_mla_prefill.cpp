#include "../cpu/ops.h"
#include "../cuda/ops.h"
#include "mla_cache.h"

namespace dsa {

template <Backend backend>
void sparse_mla_prefill(const Tensor& q, const std::optional<Tensor>& kv,
                        const std::optional<Tensor>& cache, const Tensor& indices,
                        const std::optional<Tensor>& kv_start,
                        const std::optional<Tensor>& topk_length,
                        const std::optional<Tensor>& attn_sink, double sm_scale,
                        const std::string& cache_format, Tensor out, Tensor max_logits,
                        Tensor lse) {
  Call op("sparse_mla_prefill", backend);
  SparseMlaPrefillParams p;
  p.q = op.view<3>("q", q, {{DType::kBFloat16, DType::kFloat32}, {-1, -1, -1}});
  const int64_t num_queries = p.q.size[0], num_heads = p.q.size[1], d_qk = p.q.size[2];
  STD_TORCH_CHECK(d_qk == 576 || d_qk == 512, op, ": d_qk must be 576 or 512; got ", d_qk, ".");
  STD_TORCH_CHECK(kv.has_value() != cache.has_value(), op, ": give exactly one of kv and cache.");
  if (kv.has_value()) {
    p.kv = op.view<2>("kv", *kv, {{p.q.dtype}, {-1, d_qk}});
  } else {
    p.cache = mla_cache_view(op, "cache", *cache, cache_format, d_qk, &p.format);
    STD_TORCH_CHECK(!kv_start.has_value(), op, ": kv_start must be None with a paged cache.");
  }
  p.indices = op.view<2>("indices", indices, {{DType::kInt32}, {num_queries, -1}});
  p.kv_start = op.view<1>("kv_start", kv_start, {{DType::kInt32}, {num_queries}});
  p.topk_length = op.view<1>("topk_length", topk_length, {{DType::kInt32}, {num_queries}});
  p.attn_sink = op.view<1>("attn_sink", attn_sink, {{DType::kFloat32}, {num_heads}});
  p.sm_scale = static_cast<float>(sm_scale);
  p.out = op.output<3>("out", out, {{p.q.dtype}, {num_queries, num_heads, kValueDim}});
  p.max_logits =
      op.output<2>("max_logits", max_logits, {{DType::kFloat32}, {num_queries, num_heads}});
  p.lse = op.output<2>("lse", lse, {{DType::kFloat32}, {num_queries, num_heads}});
  op.run(p, cpu::sparse_mla_prefill, cuda::sparse_mla_prefill);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("sparse_mla_prefill", TORCH_BOX(&sparse_mla_prefill<Backend::kCpu>));
  m.impl("sparse_mla_prefill.emulated", TORCH_BOX(&sparse_mla_prefill<Backend::kEmulated>));
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CUDA, m) {
  m.impl("sparse_mla_prefill", TORCH_BOX(&sparse_mla_prefill<Backend::kCuda>));
}

}  // namespace dsa
