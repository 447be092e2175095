#include "../cpu/ops.h"
#include "../cuda/ops.h"
#include "mqa_logits.h"

namespace dsa {

template <Backend backend>
void indexer_topk(const Tensor& q, const Tensor& k, const Tensor& weights,
                  const std::optional<Tensor>& k_scale, const std::optional<Tensor>& row_start,
                  const std::optional<Tensor>& row_end, int64_t topk, Tensor workspace,
                  Tensor out) {
  Call op("indexer_topk", backend);
  IndexerTopkParams p;
  p.score = score_params(op, q, k, weights, k_scale, row_start, row_end);
  p.topk = checked_topk(op, topk);
  p.workspace = logits_workspace(op, workspace, p.score.k.size[0]);
  p.out = op.output<2>("out", out, {{DType::kInt32}, {p.score.q.size[0], topk}});
  op.run(p, cpu::indexer_topk, cuda::indexer_topk);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("indexer_topk", TORCH_BOX(&indexer_topk<Backend::kCpu>));
  m.impl("indexer_topk.emulated", TORCH_BOX(&indexer_topk<Backend::kEmulated>));
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CUDA, m) {
  m.impl("indexer_topk", TORCH_BOX(&indexer_topk<Backend::kCuda>));
}

}  // namespace dsa
