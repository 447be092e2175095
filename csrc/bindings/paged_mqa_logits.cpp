#include "paged_mqa_logits.h"

#include "../cpu/ops.h"

namespace dsa {

void paged_mqa_logits(const Tensor& q, const Tensor& cache, const Tensor& weights,
                      const Tensor& seq_lens, const Tensor& block_table, bool fill, Tensor out) {
  const char* op = "paged_mqa_logits";
  PagedMqaLogitsParams p = paged_score_params(op, q, cache, weights, seq_lens, block_table);
  p.fill = fill;
  p.out = view<2>(op, "out", out, {{DType::kFloat32, DType::kBFloat16}, {p.weights.size[0], -1}});
  cpu::paged_mqa_logits(p);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("paged_mqa_logits", TORCH_BOX(&paged_mqa_logits));
}

}  // namespace dsa
