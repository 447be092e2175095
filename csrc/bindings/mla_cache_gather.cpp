#include <string>

#include "../cpu/ops.h"
#include "../cuda/ops.h"
#include "mla_cache.h"

namespace dsa {

template <Backend backend>
void mla_cache_gather(const Tensor& cache, const Tensor& block_table, const Tensor& cu_seq_lens,
                      const std::optional<Tensor>& seq_start, const std::string& cache_format,
                      Tensor out) {
  Call op("mla_cache_gather", backend);
  MlaCacheGatherParams p;
  p.block_table = op.view<2>("block_table", block_table, {{DType::kInt32}, {-1, -1}});
  const int64_t batch = p.block_table.size[0];
  p.cu_seq_lens = op.view<1>("cu_seq_lens", cu_seq_lens, {{DType::kInt32}, {batch + 1}});
  p.seq_start = op.view<1>("seq_start", seq_start, {{DType::kInt32}, {batch}});
  p.out = op.output<2>("out", out, {{DType::kBFloat16, DType::kFloat32}, {-1, -1}});
  p.cache = mla_cache_view(op, "cache", cache, cache_format, p.out.size[1], &p.format);
  op.run(p, cpu::mla_cache_gather, cuda::mla_cache_gather);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("mla_cache_gather", TORCH_BOX(&mla_cache_gather<Backend::kCpu>));
  m.impl("mla_cache_gather.emulated", TORCH_BOX(&mla_cache_gather<Backend::kEmulated>));
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CUDA, m) {
  m.impl("mla_cache_gather", TORCH_BOX(&mla_cache_gather<Backend::kCuda>));
}

}  // namespace dsa
