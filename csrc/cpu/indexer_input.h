// A row of the indexer's q or k on its way to the quantiser: LayerNorm, RoPE, Hadamard. Repeats
// dsa_kernels/reference/indexer_input.py bitwise, but for the order of LayerNorm's sums: fp32, one
// rounded operation at a time, each step's result rounded to the input's dtype.
#pragma once

#include <cmath>

#include "convert.h"
#include "quantize.h"

namespace dsa::cpu {

// What the steps leave in x, rounded to `dtype` and back.
inline void round_row(const Isa& isa, DType dtype, float* x, int n) {
  if (dtype != DType::kBFloat16) return;
  uint16_t rounded[kMaxIndexDim];
  isa.to_bfloat16(x, rounded, n);
  isa.from_bfloat16(rounded, x, n);
}

// Sum of f(x[i]) over i < n in kLanes interleaved partial sums; n is a multiple of kLanes.
template <class F>
float lane_sum(const float* x, int n, const F& f) {
  constexpr int kLanes = 8;
  float lanes[kLanes] = {};
  for (int i = 0; i < n; i += kLanes)
    for (int l = 0; l < kLanes; ++l) lanes[l] += f(x[i + l]);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  return lanes[0];
}

inline void layer_norm(float* x, int n, const float* weight, const float* bias, float eps) {
  const float mean = lane_sum(x, n, [](float v) { return v; }) / n;
  for (int i = 0; i < n; ++i) x[i] -= mean;
  const float variance = lane_sum(x, n, [](float v) { return v * v; }) / n;
  const float inverse = 1.0f / std::sqrt(variance + eps);
  for (int i = 0; i < n; ++i) x[i] = x[i] * inverse * weight[i] + bias[i];
}

// RoPE of the first rope_dim dims. cos_sin: rope_dim / 2 cosines, then as many sines.
inline void rotate(float* x, const float* cos_sin, int rope_dim, RopeLayout layout) {
  const int half = rope_dim / 2;
  const int pair_step = layout == RopeLayout::kNeox ? 1 : 2;
  const int partner = layout == RopeLayout::kNeox ? half : 1;
  for (int i = 0; i < half; ++i) {
    float& first = x[i * pair_step];
    float& second = x[i * pair_step + partner];
    const float cos = cos_sin[i], sin = cos_sin[half + i];
    const float rotated = first * cos - second * sin;
    second = second * cos + first * sin;
    first = rotated;
  }
}

// Orthonormal Walsh-Hadamard transform; n is a power of two, at least 8. Strides 1 and 2 go
// together, in groups of 4; the others work on vectors of 4.
inline void hadamard_transform(float* x, int n) {
  typedef float Vec4 __attribute__((vector_size(16), aligned(4), may_alias));
  for (float* g = x; g < x + n; g += 4) {
    const float a = g[0] + g[1], b = g[0] - g[1], c = g[2] + g[3], d = g[2] - g[3];
    g[0] = a + c;
    g[1] = b + d;
    g[2] = a - c;
    g[3] = b - d;
  }
  for (int stride = 4; stride < n; stride *= 2)
    for (int base = 0; base < n; base += 2 * stride)
      for (int i = base; i < base + stride; i += 4) {
        Vec4& low = *reinterpret_cast<Vec4*>(x + i);
        Vec4& high = *reinterpret_cast<Vec4*>(x + i + stride);
        const Vec4 a = low, b = high;
        low = a + b;
        high = a - b;
      }
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(n)));
  for (int i = 0; i < n; ++i) x[i] *= scale;
}

// Whether a token's position lies in the table; true where there is no RoPE.
inline bool has_valid_position(const IndexerInputParams& p, int64_t token) {
  if (p.rope_layout == RopeLayout::kNone) return true;
  const int64_t position = integer_at(p.positions, token);
  return position >= 0 && position < p.cos_sin.size[0];
}

// x -> codes and scale; NaN of both where the token's position is invalid.
inline void quantize_row(const Isa& isa, const IndexerInputParams& p, int64_t token, DType dtype,
                         float* x, int n, uint8_t* codes, float* scale) {
  if (!has_valid_position(p, token)) {
    std::memset(codes, kFp8Nan, n);
    *scale = NAN;
    return;
  }
  if (p.rope_layout != RopeLayout::kNone) {
    const int64_t position = integer_at(p.positions, token);
    rotate(x, p.cos_sin.as<const float>() + position * p.cos_sin.stride[0],
           static_cast<int>(p.cos_sin.size[1]), p.rope_layout);
    round_row(isa, dtype, x, n);
  }
  if (p.hadamard) {
    hadamard_transform(x, n);
    round_row(isa, dtype, x, n);
  }
  quantize_group(x, n, p.ue8m0, codes, scale);
}

}  // namespace dsa::cpu
