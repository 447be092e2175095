#include <string>

#include "../cpu/ops.h"
#include "../cuda/ops.h"
#include "mla_cache.h"

namespace dsa {

template <Backend backend>
void mla_cache_store(const Tensor& kv_c, const Tensor& k_pe, const Tensor& slots,
                     const std::string& cache_format, const std::string& scale_format,
                     Tensor cache) {
  Call op("mla_cache_store", backend);
  MlaCacheStoreParams p;
  p.kv_c = op.view<2>("kv_c", kv_c, {{DType::kBFloat16, DType::kFloat32}, {-1, -1}});
  const int64_t num_tokens = p.kv_c.size[0];
  p.k_pe = op.view<2>("k_pe", k_pe, {{p.kv_c.dtype}, {num_tokens, kRopeDim}});
  p.slots = op.view<1>("slots", slots, {{DType::kInt32, DType::kInt64}, {num_tokens}});
  p.cache = mla_cache_view(op, "cache", cache, cache_format, p.kv_c.size[1] + kRopeDim, &p.format,
                           Access::kUpdate);
  p.ue8m0 = scale_format == "ue8m0";
  STD_TORCH_CHECK(p.ue8m0 || (scale_format == "float32" && p.format == CacheFormat::kV32), op,
                  ": scale_format must be ue8m0, or float32 for a v32 cache.");
  op.run(p, cpu::mla_cache_store, cuda::mla_cache_store);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("mla_cache_store", TORCH_BOX(&mla_cache_store<Backend::kCpu>));
  m.impl("mla_cache_store.emulated", TORCH_BOX(&mla_cache_store<Backend::kEmulated>));
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CUDA, m) {
  m.impl("mla_cache_store", TORCH_BOX(&mla_cache_store<Backend::kCuda>));
}

}  // namespace dsa
