// The steps of the indexer's q and k, from the op's arguments.
#pragma once

#include "convert.h"

namespace dsa::cpu {

inline RowSteps row_steps(const IndexerInputParams& p) {
  RowSteps steps;
  steps.rope_dim = p.rope_layout == RopeLayout::kNone ? 0 : static_cast<int>(p.cos_sin.size[1]);
  steps.interleaved = p.rope_layout == RopeLayout::kInterleaved;
  steps.hadamard = p.hadamard;
  steps.ue8m0 = p.ue8m0;
  return steps;
}

// The table's row for a token; null without RoPE, or where its position lies outside the table.
inline const float* rope_row(const IndexerInputParams& p, int64_t token) {
  if (p.rope_layout == RopeLayout::kNone) return nullptr;
  const int64_t position = integer_at(p.positions, token);
  if (position < 0 || position >= p.cos_sin.size[0]) return nullptr;
  return p.cos_sin.as<const float>() + position * p.cos_sin.stride[0];
}

}  // namespace dsa::cpu
