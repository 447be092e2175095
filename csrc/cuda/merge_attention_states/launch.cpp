#include "../access.h"
#include "../ops.h"
#include "kernel.h"

namespace dsa::cuda {

void merge_attention_states(const MergeAttentionStatesParams& p, const Target& target) {
  const int64_t num_rows = p.out.size[0], num_heads = p.out.size[1], d_v = p.out.size[2];
  if (num_rows == 0 || num_heads == 0) return;
  const MergeAttentionStatesArgs args{
      .outs = p.outs.data,
      .lses = p.lses.as<const float>(),
      .attn_sink = p.attn_sink.as<const float>(),
      .out = p.out.data,
      .lse = p.lse.as<float>(),
      .num_parts = p.outs.size[0],
      .num_rows = num_rows,
      .d_v = d_v,
      .heads = Blocks::of(num_heads),
      .outs_part_stride = p.outs.stride[0],
      .outs_row_stride = p.outs.stride[1],
      .outs_head_stride = p.outs.stride[2],
      .lses_part_stride = p.lses.stride[0],
      .lses_row_stride = p.lses.stride[1],
      .lses_head_stride = p.lses.stride[2],
      .out_row_stride = p.out.stride[0],
      .out_head_stride = p.out.stride[1],
      .lse_row_stride = p.lse.stride[0],
      .lse_head_stride = p.lse.stride[1],
  };
  const int64_t in = element_size(p.outs.dtype), out = element_size(p.out.dtype);
  const int64_t vector = 16 / std::max(in, out);
  const bool vectors =
      d_v % vector == 0 && aligned(p.outs, vector * in) && aligned(p.out, vector * out);
  const std::string name =
      std::string("merge_attention_states_") + name_of(p.outs.dtype) + "_" + name_of(p.out.dtype);
  Shape shape;
  shape.grid[0] = ctas_for(num_rows * num_heads, kMergeThreads / 32);
  shape.block = kMergeThreads;
  launch(target, "merge_attention_states.sm80", variant(name, vectors).c_str(), shape, args);
}

}  // namespace dsa::cuda
