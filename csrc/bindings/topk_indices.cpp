#include "../cpu/ops.h"
#include "common.h"

namespace dsa {

void topk_indices(const Tensor& scores, const std::optional<Tensor>& row_start,
                  const std::optional<Tensor>& row_end, int64_t topk, Tensor out) {
  const char* op = "topk_indices";
  TopkIndicesParams p;
  p.scores = view<2>(op, "scores", scores, {{DType::kFloat32}, {-1, -1}});
  const int64_t num_rows = p.scores.size[0];
  p.row_start = view<1>(op, "row_start", row_start, {{DType::kInt32}, {num_rows}});
  p.row_end = view<1>(op, "row_end", row_end, {{DType::kInt32}, {num_rows}});
  p.topk = checked_topk(op, topk);
  p.out = view<2>(op, "out", out, {{DType::kInt32}, {num_rows, topk}});
  cpu::topk_indices(p);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("topk_indices", TORCH_BOX(&topk_indices));
}

}  // namespace dsa
