#include "../cpu/ops.h"
#include "../cuda/ops.h"
#include "common.h"

namespace dsa {

template <Backend backend>
void topk_indices(const Tensor& scores, const std::optional<Tensor>& row_start,
                  const std::optional<Tensor>& row_end, int64_t topk, Tensor out) {
  Call op("topk_indices", backend);
  TopkIndicesParams p;
  p.scores = op.view<2>("scores", scores, {{DType::kFloat32}, {-1, -1}});
  const int64_t num_rows = p.scores.size[0];
  p.row_start = op.view<1>("row_start", row_start, {{DType::kInt32}, {num_rows}});
  p.row_end = op.view<1>("row_end", row_end, {{DType::kInt32}, {num_rows}});
  p.topk = checked_topk(op, topk);
  p.out = op.output<2>("out", out, {{DType::kInt32}, {num_rows, topk}});
  op.run(p, cpu::topk_indices, cuda::topk_indices);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("topk_indices", TORCH_BOX(&topk_indices<Backend::kCpu>));
  m.impl("topk_indices.emulated", TORCH_BOX(&topk_indices<Backend::kEmulated>));
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CUDA, m) {
  m.impl("topk_indices", TORCH_BOX(&topk_indices<Backend::kCuda>));
}

}  // namespace dsa
