#include <string>

#include "../cpu/ops.h"
#include "mla_cache.h"

namespace dsa {

void mla_cache_gather(const Tensor& cache, const Tensor& block_table, const Tensor& cu_seq_lens,
                      const std::optional<Tensor>& seq_start, const std::string& cache_format,
                      Tensor out) {
  const char* op = "mla_cache_gather";
  MlaCacheGatherParams p;
  p.block_table = view<2>(op, "block_table", block_table, {{DType::kInt32}, {-1, -1}});
  const int64_t batch = p.block_table.size[0];
  p.cu_seq_lens = view<1>(op, "cu_seq_lens", cu_seq_lens, {{DType::kInt32}, {batch + 1}});
  p.seq_start = view<1>(op, "seq_start", seq_start, {{DType::kInt32}, {batch}});
  p.out = view<2>(op, "out", out, {{DType::kBFloat16, DType::kFloat32}, {-1, -1}});
  p.cache = mla_cache_view(op, "cache", cache, cache_format, p.out.size[1], &p.format);
  cpu::mla_cache_gather(p);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("mla_cache_gather", TORCH_BOX(&mla_cache_gather));
}

}  // namespace dsa
