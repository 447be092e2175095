#include "../access.h"
#include "../ops.h"
#include "kernel.h"

namespace dsa::cuda {

void merge_attention_states(const MergeAttentionStatesParams& p, const Target& target) {
  const int64_t num_rows = p.out.size[0], num_heads = p.out.size[1], d_v = p.out.size[2];
  if (num_rows == 0 || num_heads == 0) return;
  const MergeAttentionStatesArgs args{p.outs.data,
                                      p.lses.as<const float>(),
                                      p.attn_sink.as<const float>(),
                                      p.out.data,
                                      p.lse.as<float>(),
                                      p.outs.size[0],
                                      num_rows,
                                      num_heads,
                                      d_v,
                                      p.outs.stride[0],
                                      p.outs.stride[1],
                                      p.outs.stride[2],
                                      p.lses.stride[0],
                                      p.lses.stride[1],
                                      p.lses.stride[2],
                                      p.out.stride[0],
                                      p.out.stride[1],
                                      p.lse.stride[0],
                                      p.lse.stride[1]};
  const int64_t in = element_size(p.outs.dtype), out = element_size(p.out.dtype);
  const int64_t vector = 16 / std::max(in, out);
  const bool vectors =
      d_v % vector == 0 && aligned(p.outs, vector * in) && aligned(p.out, vector * out);
  const auto type = [](int64_t bytes) { return bytes == 2 ? "_bf16" : "_f32"; };
  const std::string name = std::string("merge_attention_states") + type(in) + type(out);
  Shape shape;
  shape.grid[0] = ctas_for(num_rows * num_heads, kMergeThreads / 32);
  shape.block = kMergeThreads;
  launch(target, "merge_attention_states.sm80", variant(name, vectors).c_str(), shape, args);
}

}  // namespace dsa::cuda
