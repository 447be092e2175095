#include "../cpu/ops.h"
#include "../cuda/ops.h"
#include "paged_mqa_logits.h"

namespace dsa {

template <Backend backend>
void paged_indexer_topk(const Tensor& q, const Tensor& cache, const Tensor& weights,
                        const Tensor& seq_lens, const Tensor& block_table, int64_t topk,
                        int64_t max_seq_len, Tensor workspace, Tensor out) {
  Call op("paged_indexer_topk", backend);
  PagedIndexerTopkParams p;
  p.score = paged_score_params(op, q, cache, weights, seq_lens, block_table);
  STD_TORCH_CHECK(max_seq_len >= 0 && max_seq_len <= INT32_MAX, op,
                  ": max_seq_len must be in [0, 2^31); got ", max_seq_len, ".");
  p.topk = checked_topk(op, topk);
  p.max_seq_len = max_seq_len;
  p.workspace = logits_workspace(op, workspace, p.score.q.size[1] * max_seq_len);
  p.out = op.output<2>("out", out, {{DType::kInt32}, {p.score.weights.size[0], topk}});
  op.run(p, cpu::paged_indexer_topk, cuda::paged_indexer_topk);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("paged_indexer_topk", TORCH_BOX(&paged_indexer_topk<Backend::kCpu>));
  m.impl("paged_indexer_topk.emulated", TORCH_BOX(&paged_indexer_topk<Backend::kEmulated>));
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CUDA, m) {
  m.impl("paged_indexer_topk", TORCH_BOX(&paged_indexer_topk<Backend::kCuda>));
}

}  // namespace dsa
