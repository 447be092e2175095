#include "mqa_logits.h"

#include <string>

#include "../cpu/ops.h"
#include "../cuda/ops.h"

namespace dsa {

template <Backend backend>
void mqa_logits(const Tensor& q, const Tensor& k, const Tensor& weights,
                const std::optional<Tensor>& k_scale, const std::optional<Tensor>& row_start,
                const std::optional<Tensor>& row_end, const std::string& layout, bool fill,
                Tensor out) {
  Call op("mqa_logits", backend);
  MqaLogitsParams p = score_params(op, q, k, weights, k_scale, row_start, row_end);
  p.compressed = layout == "compressed";
  STD_TORCH_CHECK(p.compressed || layout == "full", op, ": layout must be full or compressed.");
  p.fill = fill;
  p.out = op.output<2>(
      "out", out,
      {{DType::kFloat32, DType::kBFloat16}, {p.q.size[0], p.compressed ? -1 : p.k.size[0]}});
  op.run(p, cpu::mqa_logits, cuda::mqa_logits);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("mqa_logits", TORCH_BOX(&mqa_logits<Backend::kCpu>));
  m.impl("mqa_logits.emulated", TORCH_BOX(&mqa_logits<Backend::kEmulated>));
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CUDA, m) {
  m.impl("mqa_logits", TORCH_BOX(&mqa_logits<Backend::kCuda>));
}

}  // namespace dsa
