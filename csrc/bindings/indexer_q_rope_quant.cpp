#include "../cpu/ops.h"
#include "../cuda/ops.h"
#include "indexer_input.h"

namespace dsa {

template <Backend backend>
void indexer_q_rope_quant(const Tensor& q, const Tensor& weights,
                          const std::optional<Tensor>& positions,
                          const std::optional<Tensor>& cos_sin, const std::string& rope_layout,
                          bool hadamard, double weights_scale, const std::string& scale_format,
                          Tensor q_out, Tensor weights_out) {
  Call op("indexer_q_rope_quant", backend);
  const auto floats = {DType::kBFloat16, DType::kFloat32};
  IndexerQRopeQuantParams p;
  p.q = op.view<3>("q", q, {floats, {-1, -1, -1}});
  const int64_t num_tokens = p.q.size[0], num_heads = p.q.size[1], head_dim = p.q.size[2];
  p.weights = op.view<2>("weights", weights, {floats, {num_tokens, num_heads}});
  p.input = indexer_input(op, num_tokens, head_dim, positions, cos_sin, rope_layout, hadamard,
                          scale_format);
  p.weights_scale = static_cast<float>(weights_scale);
  p.q_out = op.output<3>("q_out", q_out, {{DType::kFloat8E4M3}, {num_tokens, num_heads, head_dim}});
  p.weights_out =
      op.output<2>("weights_out", weights_out, {{DType::kFloat32}, {num_tokens, num_heads}});
  op.run(p, cpu::indexer_q_rope_quant, cuda::indexer_q_rope_quant);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("indexer_q_rope_quant", TORCH_BOX(&indexer_q_rope_quant<Backend::kCpu>));
  m.impl("indexer_q_rope_quant.emulated", TORCH_BOX(&indexer_q_rope_quant<Backend::kEmulated>));
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CUDA, m) {
  m.impl("indexer_q_rope_quant", TORCH_BOX(&indexer_q_rope_quant<Backend::kCuda>));
}

}  // namespace dsa
