#include "../cpu/ops.h"
#include "../cuda/ops.h"
#include "mla_cache.h"

namespace dsa {

template <Backend backend>
void sparse_mla_decode(const Tensor& q, const Tensor& cache, const Tensor& indices,
                       const std::optional<Tensor>& topk_length,
                       const std::optional<Tensor>& attn_sink,
                       const std::optional<Tensor>& extra_cache,
                       const std::optional<Tensor>& extra_indices,
                       const std::optional<Tensor>& extra_topk_length, double sm_scale,
                       const std::string& cache_format, bool batch_invariant, Tensor out,
                       Tensor lse) {
  Call op("sparse_mla_decode", backend);
  SparseMlaDecodeParams p;
  p.q = op.view<4>("q", q, {{DType::kBFloat16, DType::kFloat32}, {-1, -1, -1, -1}});
  const int64_t batch = p.q.size[0], next_n = p.q.size[1], num_heads = p.q.size[2];
  p.cache = mla_cache_view(op, "cache", cache, cache_format, p.q.size[3], &p.format);
  p.indices = op.view<3>("indices", indices, {{DType::kInt32}, {batch, next_n, -1}});
  p.topk_length = op.view<2>("topk_length", topk_length, {{DType::kInt32}, {batch, next_n}});
  p.attn_sink = op.view<1>("attn_sink", attn_sink, {{DType::kFloat32}, {num_heads}});
  STD_TORCH_CHECK(extra_cache.has_value() == extra_indices.has_value(), op,
                  ": extra_cache and extra_indices must be given together.");
  if (extra_cache.has_value()) {
    p.extra_cache =
        mla_cache_view(op, "extra_cache", *extra_cache, cache_format, p.q.size[3], &p.format);
    p.extra_indices =
        op.view<3>("extra_indices", *extra_indices, {{DType::kInt32}, {batch, next_n, -1}});
    p.extra_topk_length =
        op.view<2>("extra_topk_length", extra_topk_length, {{DType::kInt32}, {batch, next_n}});
  }
  p.sm_scale = static_cast<float>(sm_scale);
  p.batch_invariant = batch_invariant;
  p.out = op.output<4>("out", out, {{p.q.dtype}, {batch, next_n, num_heads, kValueDim}});
  p.lse = op.output<3>("lse", lse, {{DType::kFloat32}, {batch, next_n, num_heads}});
  op.run(p, cpu::sparse_mla_decode, cuda::sparse_mla_decode);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("sparse_mla_decode", TORCH_BOX(&sparse_mla_decode<Backend::kCpu>));
  m.impl("sparse_mla_decode.emulated", TORCH_BOX(&sparse_mla_decode<Backend::kEmulated>));
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CUDA, m) {
  m.impl("sparse_mla_decode", TORCH_BOX(&sparse_mla_decode<Backend::kCuda>));
}

}  // namespace dsa
