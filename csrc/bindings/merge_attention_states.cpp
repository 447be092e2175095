#include "../cpu/ops.h"
#include "../cuda/ops.h"
#include "common.h"

namespace dsa {

template <Backend backend>
void merge_attention_states(const Tensor& outs, const Tensor& lses,
                            const std::optional<Tensor>& attn_sink, Tensor out, Tensor lse) {
  Call op("merge_attention_states", backend);
  MergeAttentionStatesParams p;
  p.outs = op.view<4>("outs", outs, {{DType::kBFloat16, DType::kFloat32}, {-1, -1, -1, -1}});
  const int64_t num_parts = p.outs.size[0], num_rows = p.outs.size[1];
  const int64_t num_heads = p.outs.size[2], d_v = p.outs.size[3];
  p.lses = op.view<3>("lses", lses, {{DType::kFloat32}, {num_parts, num_rows, num_heads}});
  p.attn_sink = op.view<1>("attn_sink", attn_sink, {{DType::kFloat32}, {num_heads}});
  p.out =
      op.output<3>("out", out, {{DType::kBFloat16, DType::kFloat32}, {num_rows, num_heads, d_v}});
  p.lse = op.output<2>("lse", lse, {{DType::kFloat32}, {num_rows, num_heads}});
  op.run(p, cpu::merge_attention_states, cuda::merge_attention_states);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("merge_attention_states", TORCH_BOX(&merge_attention_states<Backend::kCpu>));
  m.impl("merge_attention_states.emulated", TORCH_BOX(&merge_attention_states<Backend::kEmulated>));
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CUDA, m) {
  m.impl("merge_attention_states", TORCH_BOX(&merge_attention_states<Backend::kCuda>));
}

}  // namespace dsa
