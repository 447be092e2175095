#include "../cpu/ops.h"
#include "common.h"

namespace dsa {

void merge_attention_states(const Tensor& outs, const Tensor& lses,
                            const std::optional<Tensor>& attn_sink, Tensor out, Tensor lse) {
  const char* op = "merge_attention_states";
  MergeAttentionStatesParams p;
  p.outs = view<4>(op, "outs", outs, {{DType::kBFloat16, DType::kFloat32}, {-1, -1, -1, -1}});
  const int64_t num_parts = p.outs.size[0], num_rows = p.outs.size[1];
  const int64_t num_heads = p.outs.size[2], d_v = p.outs.size[3];
  p.lses = view<3>(op, "lses", lses, {{DType::kFloat32}, {num_parts, num_rows, num_heads}});
  p.attn_sink = view<1>(op, "attn_sink", attn_sink, {{DType::kFloat32}, {num_heads}});
  p.out =
      view<3>(op, "out", out, {{DType::kBFloat16, DType::kFloat32}, {num_rows, num_heads, d_v}});
  p.lse = view<2>(op, "lse", lse, {{DType::kFloat32}, {num_rows, num_heads}});
  cpu::merge_attention_states(p);
}

STABLE_TORCH_LIBRARY_IMPL(dsa_kernels, CPU, m) {
  m.impl("merge_attention_states", TORCH_BOX(&merge_attention_states));
}

}  // namespace dsa
