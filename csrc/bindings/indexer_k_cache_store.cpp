#include "../cpu/ops.h"
#include "../cuda/ops.h"
#include "indexer_input.h"

namespace dsa {

template <Backend backend>
void indexer_k_cache_store(const Tensor& k, const Tensor& slots,
                           const std::optional<Tensor>& norm_weight,
                           const std::optional<Tensor>& norm_bias, double norm_eps,
                           const std::optional<Tensor>& positions,
                           const std::optional<Tensor>& cos_sin, const std::string& rope_layout,
                           bool hadamard, const std::string& scale_format, Tensor cache) {
  Call op("indexer_k_cache_store", backend);
  const auto floats = {DType::kBFloat16, DType::kFloat32};
  IndexerKCacheStoreParams p;
  p.k = op.view<2>("k", k, {floats, {-1, -1}});
  const int64_t num_tokens = p.k.size[0], head_dim = p.k.size[1];
  p.slots = op.view<1>("slots", slots, {{DType::kInt32, DType::kInt64}, {num_tokens}});
  STD_TORCH_CHECK(norm_weight.has_value() == norm_bias.has_value(), op,
                  ": norm_weight and norm_bias go together.");
  p.norm_weight = op.view<1>("norm_weight", norm_weight, {floats, {head_dim}});
  p.norm_bias = op.view<1>("norm_bias", norm_bias, {floats, {head_dim}});
  p.norm_eps = static_cast<float>(norm_eps);
  p.input = indexer_input(op, num_tokens, head_dim, positions, cos_sin, rope_layout, hadamard,
                          scale_format);
  p.cache = op.update<3>("cache", cache, {{DType::kUInt8}, {-1, -1, head_dim + 4}, 1});
  op.run(p, cpu::indexer_k_cache_store, cuda::indexer_k_cache_store);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("indexer_k_cache_store", TORCH_BOX(&indexer_k_cache_store<Backend::kCpu>));
  m.impl("indexer_k_cache_store.emulated", TORCH_BOX(&indexer_k_cache_store<Backend::kEmulated>));
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CUDA, m) {
  m.impl("indexer_k_cache_store", TORCH_BOX(&indexer_k_cache_store<Backend::kCuda>));
}

}  // namespace dsa
