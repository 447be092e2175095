// Unwraps the arguments that paged_mqa_logits and paged_indexer_topk share.
#pragma once

#include "mqa_logits.h"

namespace dsa {

inline PagedMqaLogitsParams paged_score_params(Call& op, const Tensor& q, const Tensor& cache,
                                               const Tensor& weights, const Tensor& seq_lens,
                                               const Tensor& block_table) {
  PagedMqaLogitsParams p;
  p.q = op.view<4>("q", q, {{DType::kFloat8E4M3}, {-1, -1, -1, -1}});
  const int64_t batch = p.q.size[0], next_n = p.q.size[1];
  check_indexer_shape(op, p.q.size[2], p.q.size[3]);
  p.cache = op.view<3>("cache", cache, {{DType::kUInt8}, {-1, -1, p.q.size[3] + 4}, 1});
  p.weights = op.view<2>("weights", weights, {{DType::kFloat32}, {batch * next_n, p.q.size[2]}});
  p.seq_lens = op.view<2>("seq_lens", seq_lens, {{DType::kInt32}, {batch, next_n}});
  p.block_table = op.view<2>("block_table", block_table, {{DType::kInt32}, {batch, -1}});
  return p;
}

}  // namespace dsa
