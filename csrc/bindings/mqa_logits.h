// Unwraps the arguments that mqa_logits and indexer_topk share.
#pragma once

#include "common.h"

namespace dsa {

inline void check_indexer_shape(Call& op, int64_t num_heads, int64_t head_dim) {
  STD_TORCH_CHECK(num_heads == 8 || num_heads == 16 || num_heads == 32 || num_heads == 64, op,
                  ": num_heads must be 8, 16, 32 or 64; got ", num_heads, ".");
  STD_TORCH_CHECK(head_dim >= 1 && head_dim <= kMaxIndexDim, op, ": head_dim must be at most ",
                  kMaxIndexDim, "; got ", head_dim, ".");
}

inline MqaLogitsParams score_params(Call& op, const Tensor& q, const Tensor& k,
                                    const Tensor& weights, const std::optional<Tensor>& k_scale,
                                    const std::optional<Tensor>& row_start,
                                    const std::optional<Tensor>& row_end) {
  MqaLogitsParams p;
  p.q = op.view<3>("q", q, {{DType::kFloat8E4M3, DType::kBFloat16, DType::kFloat32}, {-1, -1, -1}});
  const int64_t num_rows = p.q.size[0], num_heads = p.q.size[1], head_dim = p.q.size[2];
  check_indexer_shape(op, num_heads, head_dim);
  p.k = op.view<2>("k", k, {{p.q.dtype}, {-1, head_dim}});
  p.weights = op.view<2>("weights", weights, {{DType::kFloat32}, {num_rows, num_heads}});
  p.k_scale = op.view<1>("k_scale", k_scale, {{DType::kFloat32}, {p.k.size[0]}});
  p.row_start = op.view<1>("row_start", row_start, {{DType::kInt32}, {num_rows}});
  p.row_end = op.view<1>("row_end", row_end, {{DType::kInt32}, {num_rows}});
  return p;
}

}  // namespace dsa
