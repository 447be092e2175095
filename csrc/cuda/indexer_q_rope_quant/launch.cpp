#include "../access.h"
#include "../ops.h"
#include "kernel.h"

namespace dsa::cuda {

void indexer_q_rope_quant(const IndexerQRopeQuantParams& p, const Target& target) {
  const int64_t num_tokens = p.q.size[0], num_heads = p.q.size[1];
  const int head_dim = static_cast<int>(p.q.size[2]);
  if (num_tokens == 0 || num_heads == 0) return;
  const int64_t chunks = (num_heads + kHeadsPerWarp - 1) / kHeadsPerWarp;
  const IndexerQRopeQuantArgs args{
      .q = p.q.data,
      .weights = p.weights.data,
      .q_out = p.q_out.as<uint8_t>(),
      .weights_out = p.weights_out.as<float>(),
      .num_tokens = num_tokens,
      .num_heads = num_heads,
      .chunks = Blocks::of(chunks),
      .q_token_stride = p.q.stride[0],
      .q_head_stride = p.q.stride[1],
      .weights_stride = p.weights.stride[0],
      .weights_out_stride = p.weights_out.stride[0],
      .q_out_token_stride = p.q_out.stride[0],
      .q_out_head_stride = p.q_out.stride[1],
      .wide_weights = p.weights.dtype == DType::kFloat32,
      .weights_scale = p.weights_scale,
      .input = indexer_input(p.input),
  };
  const std::string name =
      std::string("indexer_q_rope_quant_") + name_of(p.q.dtype) + "_" + std::to_string(head_dim);
  const bool vectors = aligned(p.q, 16) && aligned(p.input.cos_sin, 16) && aligned(p.q_out, 8);
  Shape shape;
  shape.grid[0] = ctas_for(num_tokens * chunks, kQuantThreads / 32);
  shape.block = kQuantThreads;
  shape.shared_bytes = rope_shared_bytes(args.input, kQuantThreads, head_dim);
  launch(target, "indexer_q_rope_quant.sm80", variant(name, vectors).c_str(), shape, args);
}

}  // namespace dsa::cuda
