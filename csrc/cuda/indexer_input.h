// How the indexer's q and k are rotated and quantised, as kernels see it.
#pragma once

#include "../formats.h"
#include "../params.h"

namespace dsa::cuda {

struct IndexerInput {
  const void* positions;  // int32 | int64 [num_tokens], null without RoPE
  const float* cos_sin;   // [max_position, rope_dim], null without RoPE
  int64_t max_position, cos_sin_stride;
  int32_t rope_dim;  // 0 without RoPE
  bool wide_positions, interleaved, hadamard, ue8m0;
};

inline IndexerInput indexer_input(const IndexerInputParams& p) {
  const bool rope = p.rope_layout != RopeLayout::kNone;
  return {
      .positions = p.positions.data,
      .cos_sin = p.cos_sin.as<const float>(),
      .max_position = p.cos_sin.size[0],
      .cos_sin_stride = p.cos_sin.stride[0],
      .rope_dim = rope ? static_cast<int32_t>(p.cos_sin.size[1]) : 0,
      .wide_positions = p.positions.dtype == DType::kInt64,
      .interleaved = p.rope_layout == RopeLayout::kInterleaved,
      .hadamard = p.hadamard,
      .ue8m0 = p.ue8m0,
  };
}

constexpr int kLanesPerIndexerRow = 8;

// The width that kernels have in registers, that of every published model. Of others, values pass
// through shared memory, a row for each that a CTA does at a time.
constexpr int kRopeInRegisters = 64;

inline uint32_t rope_shared_bytes(const IndexerInput& p, int threads, int head_dim) {
  const bool general = p.rope_dim != 0 && p.rope_dim != kRopeInRegisters;
  return general ? static_cast<uint32_t>(threads / kLanesPerIndexerRow * head_dim * sizeof(float))
                 : 0;
}

}  // namespace dsa::cuda
