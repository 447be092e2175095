// The steps of a row of the indexer's q or k, from the op's arguments.
#pragma once

#include <cmath>
#include <cstring>

#include "convert.h"

namespace dsa::cpu {

constexpr uint8_t kFp8Nan = 0x7f;

// All but what depends on the token.
inline RowSteps row_steps(const IndexerInputParams& p) {
  RowSteps steps;
  steps.rope_dim = p.rope_layout == RopeLayout::kNone ? 0 : static_cast<int>(p.cos_sin.size[1]);
  steps.interleaved = p.rope_layout == RopeLayout::kInterleaved;
  steps.hadamard = p.hadamard;
  steps.ue8m0 = p.ue8m0;
  return steps;
}

// Sets what depends on the token; false if its position lies outside the table.
inline bool set_position(const IndexerInputParams& p, int64_t token, RowSteps* steps) {
  if (p.rope_layout == RopeLayout::kNone) return true;
  const int64_t position = integer_at(p.positions, token);
  if (position < 0 || position >= p.cos_sin.size[0]) return false;
  steps->cos_sin = p.cos_sin.as<const float>() + position * p.cos_sin.stride[0];
  return true;
}

// data[offset, offset + n), bfloat16 or float32, through the steps -> codes; returns the scale.
inline float quantize(const Isa& isa, const RowSteps& steps, const void* data, DType dtype,
                      int64_t offset, int n, uint8_t* codes) {
  const void* from = advance(data, dtype, offset);
  return dtype == DType::kBFloat16
             ? isa.quantize_bf16(steps, static_cast<const uint16_t*>(from), n, codes)
             : isa.quantize_fp32(steps, static_cast<const float*>(from), n, codes);
}

}  // namespace dsa::cpu
