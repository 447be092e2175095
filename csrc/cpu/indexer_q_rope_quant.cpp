// The indexer's q: RoPE, Hadamard, FP8 codes; the scale goes into the head weights.

#include <algorithm>

#include "indexer_input.h"
#include "ops.h"
#include "parallel.h"
#include "stream.h"

namespace dsa::cpu {

void indexer_q_rope_quant(const IndexerQRopeQuantParams& p) {
  constexpr int64_t kPiece = StreamWriter::kMaxPiece / kMaxIndexDim;
  const Isa& isa = current_isa();
  const int64_t num_heads = p.q.size[1], num_rows = p.q.size[0] * num_heads;
  const int head_dim = static_cast<int>(p.q.size[2]);
  const RowSteps steps = row_steps(p.input);
  const int64_t piece = p.q_out.stride[1] == head_dim ? kPiece : 1;  // codes go to one place
  const bool streams = num_rows * head_dim >= kStreamBytes;
  parallel_runs(num_rows, [&](int64_t begin, int64_t end) {
    StreamWriter out(isa, streams);
    for (int64_t row = begin, count; row < end; row += count) {
      const int64_t token = row / num_heads, head = row % num_heads;
      count = std::min({num_heads - head, end - row, piece});
      const float* cos_sin[kPiece];
      std::fill_n(cos_sin, count, rope_row(p.input, token));
      void* codes =
          out.place(p.q_out.as<uint8_t>() + token * p.q_out.stride[0] + head * p.q_out.stride[1],
                    count * head_dim);
      float scales[kPiece], weights[kPiece];
      quantize(isa, steps, p.q.data, p.q.dtype, token * p.q.stride[0] + head * p.q.stride[1],
               p.q.stride[1], static_cast<int>(count), head_dim, cos_sin,
               static_cast<uint8_t*>(codes), scales);
      for (int64_t i = 0; i < count; ++i) {
        to_float(isa, p.weights.data, p.weights.dtype,
                 token * p.weights.stride[0] + (head + i) * p.weights.stride[1], weights + i, 1);
        p.weights_out.as<float>()[token * p.weights_out.stride[0] + head + i] =
            weights[i] * scales[i] * p.weights_scale;
      }
    }
  });
}

}  // namespace dsa::cpu
