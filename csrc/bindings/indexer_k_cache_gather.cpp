#include "../cpu/ops.h"
#include "common.h"

namespace dsa {

void indexer_k_cache_gather(const Tensor& cache, const Tensor& block_table,
                            const Tensor& cu_seq_lens, const std::optional<Tensor>& seq_start,
                            Tensor k_out, Tensor scale_out) {
  const char* op = "indexer_k_cache_gather";
  IndexerKCacheGatherParams p;
  p.block_table = view<2>(op, "block_table", block_table, {{DType::kInt32}, {-1, -1}});
  const int64_t batch = p.block_table.size[0];
  p.cu_seq_lens = view<1>(op, "cu_seq_lens", cu_seq_lens, {{DType::kInt32}, {batch + 1}});
  p.seq_start = view<1>(op, "seq_start", seq_start, {{DType::kInt32}, {batch}});
  p.k_out = view<2>(op, "k_out", k_out, {{DType::kFloat8E4M3}, {-1, -1}});
  const int64_t num_tokens = p.k_out.size[0], head_dim = p.k_out.size[1];
  p.scale_out = view<1>(op, "scale_out", scale_out, {{DType::kFloat32}, {num_tokens}});
  p.cache = view<3>(op, "cache", cache, {{DType::kUInt8}, {-1, -1, head_dim + 4}, 1});
  cpu::indexer_k_cache_gather(p);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("indexer_k_cache_gather", TORCH_BOX(&indexer_k_cache_gather));
}

}  // namespace dsa
