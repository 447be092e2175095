#include "../access.h"
#include "../ops.h"
#include "kernel.h"

namespace dsa::cuda {

void indexer_q_rope_quant(const IndexerQRopeQuantParams& p, const Target& target) {
  const int64_t num_tokens = p.q.size[0], num_heads = p.q.size[1];
  const int head_dim = static_cast<int>(p.q.size[2]);
  if (num_tokens == 0 || num_heads == 0) return;
  const IndexerQRopeQuantArgs args{p.q.data,
                                   p.weights.data,
                                   p.q_out.as<uint8_t>(),
                                   p.weights_out.as<float>(),
                                   num_tokens,
                                   num_heads,
                                   p.q.stride[0],
                                   p.q.stride[1],
                                   p.weights.stride[0],
                                   p.weights_out.stride[0],
                                   p.q_out.stride[0],
                                   p.q_out.stride[1],
                                   p.weights.dtype == DType::kFloat32,
                                   p.weights_scale,
                                   indexer_input(p.input)};
  const std::string name = std::string("indexer_q_rope_quant_") +
                           (p.q.dtype == DType::kBFloat16 ? "bf16_" : "f32_") +
                           std::to_string(head_dim);
  const bool vectors = aligned(p.q, 16) && aligned(p.input.cos_sin, 16) && aligned(p.q_out, 8);
  const int64_t chunks = (num_heads + kHeadsPerWarp - 1) / kHeadsPerWarp;
  Shape shape;
  shape.grid[0] = ctas_for(num_tokens * chunks, kQuantThreads / 32);
  shape.block = kQuantThreads;
  shape.shared_bytes = rope_shared_bytes(args.input, kQuantThreads, head_dim);
  launch(target, "indexer_q_rope_quant.sm80", variant(name, vectors).c_str(), shape, args);
}

}  // namespace dsa::cuda
