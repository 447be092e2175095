// The indexer's q: RoPE, Hadamard, FP8 codes; the scale goes into the head weights.

#include <algorithm>

#include "indexer_input.h"
#include "ops.h"
#include "parallel.h"

namespace dsa::cpu {

void indexer_q_rope_quant(const IndexerQRopeQuantParams& p) {
  constexpr int64_t kBlock = 64;  // rows (token, head) in a work item
  const Isa& isa = current_isa();
  const int64_t num_heads = p.q.size[1], num_rows = p.q.size[0] * num_heads;
  const int head_dim = static_cast<int>(p.q.size[2]);
  parallel_items((num_rows + kBlock - 1) / kBlock, [&](int64_t block) {
    float x[kMaxIndexDim];
    for (int64_t row = block * kBlock; row < std::min((block + 1) * kBlock, num_rows); ++row) {
      const int64_t token = row / num_heads, head = row % num_heads;
      to_float(isa, p.q.data, p.q.dtype, token * p.q.stride[0] + head * p.q.stride[1], x, head_dim);
      float scale, weight;
      quantize_row(isa, p.input, token, p.q.dtype, x, head_dim,
                   p.q_out.as<uint8_t>() + token * p.q_out.stride[0] + head * p.q_out.stride[1],
                   &scale);
      to_float(isa, p.weights.data, p.weights.dtype,
               token * p.weights.stride[0] + head * p.weights.stride[1], &weight, 1);
      p.weights_out.as<float>()[token * p.weights_out.stride[0] + head] =
          weight * scale * p.weights_scale;
    }
  });
}

}  // namespace dsa::cpu
