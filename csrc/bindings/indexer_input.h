// Unwraps what the indexer's q and k have in common.
#pragma once

#include <string>

#include "common.h"

namespace dsa {

inline IndexerInputParams indexer_input(Call& op, int64_t num_tokens, int64_t head_dim,
                                        const std::optional<Tensor>& positions,
                                        const std::optional<Tensor>& cos_sin,
                                        const std::string& rope_layout, bool hadamard,
                                        const std::string& scale_format) {
  IndexerInputParams p;
  STD_TORCH_CHECK(head_dim == 64 || head_dim == 128, op, ": head_dim must be 64 or 128; got ",
                  head_dim, ".");
  const bool neox = rope_layout == "neox", interleaved = rope_layout == "interleaved";
  STD_TORCH_CHECK(neox || interleaved || rope_layout == "none", op,
                  ": rope_layout must be neox, interleaved or none; got ", rope_layout, ".");
  p.rope_layout = neox          ? RopeLayout::kNeox
                  : interleaved ? RopeLayout::kInterleaved
                                : RopeLayout::kNone;
  p.hadamard = hadamard;
  p.ue8m0 = scale_format == "ue8m0";
  STD_TORCH_CHECK(p.ue8m0 || scale_format == "float32", op,
                  ": scale_format must be ue8m0 or float32; got ", scale_format, ".");
  const bool rope = p.rope_layout != RopeLayout::kNone;
  STD_TORCH_CHECK(positions.has_value() == rope && cos_sin.has_value() == rope, op,
                  ": positions and cos_sin go with a rope_layout other than none.");
  if (!rope) return p;
  p.positions = op.view<1>("positions", positions, {{DType::kInt32, DType::kInt64}, {num_tokens}});
  p.cos_sin = op.view<2>("cos_sin", cos_sin, {{DType::kFloat32}, {-1, -1}});
  const int64_t rope_dim = p.cos_sin.size[1];
  STD_TORCH_CHECK(rope_dim % 2 == 0 && rope_dim <= head_dim, op,
                  ": rope_dim must be even and at most head_dim = ", head_dim, "; got ", rope_dim,
                  ".");
  return p;
}

}  // namespace dsa
