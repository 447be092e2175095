#include "paged_mqa_logits.h"

#include "../cpu/ops.h"
#include "../cuda/ops.h"

namespace dsa {

template <Backend backend>
void paged_mqa_logits(const Tensor& q, const Tensor& cache, const Tensor& weights,
                      const Tensor& seq_lens, const Tensor& block_table, bool fill, Tensor out) {
  Call op("paged_mqa_logits", backend);
  PagedMqaLogitsParams p = paged_score_params(op, q, cache, weights, seq_lens, block_table);
  p.fill = fill;
  p.out = op.output<2>("out", out, {{DType::kFloat32, DType::kBFloat16}, {p.weights.size[0], -1}});
  op.run(p, cpu::paged_mqa_logits, cuda::paged_mqa_logits);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("paged_mqa_logits", TORCH_BOX(&paged_mqa_logits<Backend::kCpu>));
  m.impl("paged_mqa_logits.emulated", TORCH_BOX(&paged_mqa_logits<Backend::kEmulated>));
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CUDA, m) {
  m.impl("paged_mqa_logits", TORCH_BOX(&paged_mqa_logits<Backend::kCuda>));
}

}  // namespace dsa
