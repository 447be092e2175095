#include "../cpu/ops.h"
#include "../cuda/ops.h"
#include "common.h"

namespace dsa {

template <Backend backend>
void indexer_k_cache_gather(const Tensor& cache, const Tensor& block_table,
                            const Tensor& cu_seq_lens, const std::optional<Tensor>& seq_start,
                            Tensor k_out, Tensor scale_out) {
  Call op("indexer_k_cache_gather", backend);
  IndexerKCacheGatherParams p;
  p.block_table = op.view<2>("block_table", block_table, {{DType::kInt32}, {-1, -1}});
  const int64_t batch = p.block_table.size[0];
  p.cu_seq_lens = op.view<1>("cu_seq_lens", cu_seq_lens, {{DType::kInt32}, {batch + 1}});
  p.seq_start = op.view<1>("seq_start", seq_start, {{DType::kInt32}, {batch}});
  p.k_out = op.output<2>("k_out", k_out, {{DType::kFloat8E4M3}, {-1, -1}});
  const int64_t num_tokens = p.k_out.size[0], head_dim = p.k_out.size[1];
  p.scale_out = op.output<1>("scale_out", scale_out, {{DType::kFloat32}, {num_tokens}});
  p.cache = op.view<3>("cache", cache, {{DType::kUInt8}, {-1, -1, head_dim + 4}, 1});
  op.run(p, cpu::indexer_k_cache_gather, cuda::indexer_k_cache_gather);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("indexer_k_cache_gather", TORCH_BOX(&indexer_k_cache_gather<Backend::kCpu>));
  m.impl("indexer_k_cache_gather.emulated", TORCH_BOX(&indexer_k_cache_gather<Backend::kEmulated>));
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CUDA, m) {
  m.impl("indexer_k_cache_gather", TORCH_BOX(&indexer_k_cache_gather<Backend::kCuda>));
}

}  // namespace dsa
