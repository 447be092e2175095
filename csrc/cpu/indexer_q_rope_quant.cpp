// The indexer's q: RoPE, Hadamard, FP8 codes; the scale goes into the head weights.

#include <algorithm>

#include "indexer_input.h"
#include "ops.h"
#include "parallel.h"
#include "stream.h"

namespace dsa::cpu {

void indexer_q_rope_quant(const IndexerQRopeQuantParams& p) {
  constexpr int64_t kBlock = 128;  // rows (token, head) in a work item
  const Isa& isa = current_isa();
  const int64_t num_heads = p.q.size[1], num_rows = p.q.size[0] * num_heads;
  const int head_dim = static_cast<int>(p.q.size[2]);
  const RowSteps steps = row_steps(p.input);
  const bool streams = num_rows * head_dim >= kStreamBytes;
  parallel_items((num_rows + kBlock - 1) / kBlock, [&](int64_t block) {
    RowSteps row_steps = steps;
    StreamWriter out(isa, streams);
    int64_t token = block * kBlock / num_heads, head = block * kBlock % num_heads;
    const int64_t end = std::min((block + 1) * kBlock, num_rows);
    for (int64_t row = block * kBlock; row < end; ++row) {
      void* codes = out.place(
          p.q_out.as<uint8_t>() + token * p.q_out.stride[0] + head * p.q_out.stride[1], head_dim);
      float scale = NAN, weight;
      if (set_position(p.input, token, &row_steps)) {
        scale = quantize(isa, row_steps, p.q.data, p.q.dtype,
                         token * p.q.stride[0] + head * p.q.stride[1], head_dim,
                         static_cast<uint8_t*>(codes));
      } else {
        std::memset(codes, kFp8Nan, head_dim);
      }
      to_float(isa, p.weights.data, p.weights.dtype,
               token * p.weights.stride[0] + head * p.weights.stride[1], &weight, 1);
      p.weights_out.as<float>()[token * p.weights_out.stride[0] + head] =
          weight * scale * p.weights_scale;
      if (++head == num_heads) {
        head = 0;
        ++token;
      }
    }
  });
}

}  // namespace dsa::cpu
