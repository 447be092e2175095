// A row on its way to the quantiser, in registers: LayerNorm, RoPE, Hadamard, as the indexer's q
// and k have them. Repeats dsa_kernels/reference/indexer_input.py bitwise, but for the order of
// LayerNorm's sums: fp32, one rounded operation at a time, each step's result rounded to the
// input's dtype.
#pragma once

#include "quantize.h"

namespace dsa::cpu::DSA_ISA_NAMESPACE {
namespace {

constexpr int kRopeFast = 64;  // the rope_dim of every published model

// Nearest bfloat16, as float. A NaN stays one as long as its low 16 bits are zero.
DSA_INLINE VecF rounded_to_bfloat16(VecF x) {
  const VecU u = unsigned_bits(x);
#if DSA_VECTOR_BYTES == 64
  // One operation less than by shifting the last kept bit down.
  const __m512i i = (__m512i)u;
  const __mmask16 odd = _mm512_test_epi32_mask(i, _mm512_set1_epi32(0x10000));
  const __m512i down = _mm512_add_epi32(i, _mm512_set1_epi32(0x7fff));
  const VecU sum = (VecU)_mm512_mask_add_epi32(down, odd, i, _mm512_set1_epi32(0x8000));
#else
  const VecU sum = u + 0x7fff + (u >> 16 & 1);
#endif
  return floats(sum & 0xffff0000);
}

// What a step left in vectors [0, count), rounded to the input's dtype.
template <class T, int N>
DSA_INLINE void round_row(Row<N>& x, int count = Row<N>::kVectors) {
  if constexpr (sizeof(T) == 2) {
#pragma GCC unroll 32
    for (int i = 0; i < count; ++i) x.v[i] = rounded_to_bfloat16(x.v[i]);
  }
}

// norm_weight and norm_bias hold no NaN but with zero low bits.
template <int N>
DSA_INLINE void layer_norm(const RowSteps& steps, Row<N>& x) {
  const VecF mean = splat(row_sum(x) / N);
  Row<N> squares;
#pragma GCC unroll 32
  for (int i = 0; i < Row<N>::kVectors; ++i) {
    x.v[i] -= mean;
    squares.v[i] = x.v[i] * x.v[i];
  }
  const float variance = row_sum(squares) / N;
  const VecF inverse = splat(1.0f / __builtin_sqrtf(variance + steps.norm_eps));
#pragma GCC unroll 32
  for (int i = 0; i < Row<N>::kVectors; ++i) {
    const VecF weight = load(steps.norm_weight + i * kLanes);
    x.v[i] = x.v[i] * inverse * weight + load(steps.norm_bias + i * kLanes);
  }
}

// A NaN of the table with zero low bits, as rounded_to_bfloat16 wants it.
template <class V>
DSA_INLINE V plain_nan(V v) {
  return v != v ? V{} + __builtin_nanf("") : v;
}

template <int N>
DSA_INLINE void rotate_neox(const float* cos_sin, Row<N>& x) {
  constexpr int kHalf = kRopeFast / 2 / kLanes;
#pragma GCC unroll 8
  for (int i = 0; i < kHalf; ++i) {
    const VecF cos = plain_nan(load(cos_sin + i * kLanes));
    const VecF sin = plain_nan(load(cos_sin + kRopeFast / 2 + i * kLanes));
    const VecF first = x.v[i], second = x.v[i + kHalf];
    x.v[i] = first * cos - second * sin;
    x.v[i + kHalf] = second * cos + first * sin;
  }
}

// Half a vector of the table, each element twice.
DSA_INLINE VecF load_twice(const float* p) {
  const HalfF half = plain_nan(HalfF(*reinterpret_cast<const HalfFU*>(p)));
#define DSA_TWICE(l) ((l) / 2)
  return __builtin_shufflevector(half, half, DSA_EACH_LANE(DSA_TWICE));
#undef DSA_TWICE
}

template <int N>
DSA_INLINE void rotate_interleaved(const float* cos_sin, Row<N>& x) {
#define DSA_SIGN(l) ((l) % 2 == 0 ? -1.0f : 1.0f)
  const VecF sign = {DSA_EACH_LANE(DSA_SIGN)};
#undef DSA_SIGN
#pragma GCC unroll 16
  for (int i = 0; i < kRopeFast / kLanes; ++i) {
    const VecF cos = load_twice(cos_sin + i * kLanes / 2);
    const VecF sin = load_twice(cos_sin + kRopeFast / 2 + i * kLanes / 2) * sign;
    x.v[i] = x.v[i] * cos + partner<1>(x.v[i]) * sin;
  }
}

// RoPE of any width: rope_dim / 2 cosines, then as many sines.
template <class T, int N>
__attribute__((noinline)) void rotate_any(const RowSteps& steps, Row<N>& x) {
  float values[N];
  for (int i = 0; i < Row<N>::kVectors; ++i) store(values + i * kLanes, x.v[i]);
  const int half = steps.rope_dim / 2;
  const int step = steps.interleaved ? 2 : 1, partner = steps.interleaved ? 1 : half;
  const auto plain = [](float v) { return v != v ? __builtin_nanf("") : v; };
  for (int i = 0; i < half; ++i) {
    float& first = values[i * step];
    float& second = values[i * step + partner];
    const float cos = plain(steps.cos_sin[i]), sin = plain(steps.cos_sin[half + i]);
    const float rotated = first * cos - second * sin;
    second = second * cos + first * sin;
    first = rotated;
  }
  load_row(values, x);
  round_row<T>(x);
}

template <class T, int N>
DSA_INLINE void rotate(const RowSteps& steps, Row<N>& x) {
  if (steps.rope_dim != kRopeFast) {
    rotate_any<T>(steps, x);
    return;
  }
  if (steps.interleaved) {
    rotate_interleaved(steps.cos_sin, x);
  } else {
    rotate_neox(steps.cos_sin, x);
  }
  round_row<T>(x, kRopeFast / kLanes);
}

// Butterflies between lanes S apart. The product with +-1 is exact, fused or not.
template <int S, int N>
DSA_INLINE void butterflies(Row<N>& x) {
#define DSA_SIGN(l) ((l) & S ? -1.0f : 1.0f)
  const VecF sign = {DSA_EACH_LANE(DSA_SIGN)};
#undef DSA_SIGN
#pragma GCC unroll 32
  for (int i = 0; i < Row<N>::kVectors; ++i)
    x.v[i] = multiply_add(x.v[i], sign, partner<S>(x.v[i]));
}

// Orthonormal Walsh-Hadamard transform: butterflies of stride 1, 2, 4, ...
template <int N>
DSA_INLINE void hadamard(Row<N>& x) {
  butterflies<1>(x);
  butterflies<2>(x);
  if constexpr (kLanes > 4) butterflies<4>(x);
  if constexpr (kLanes > 8) butterflies<8>(x);
#pragma GCC unroll 8
  for (int stride = 1; stride < Row<N>::kVectors; stride *= 2)
#pragma GCC unroll 32
    for (int i = 0; i < Row<N>::kVectors; ++i) {
      if (i & stride) continue;
      const VecF a = x.v[i], b = x.v[i + stride];
      x.v[i] = a + b;
      x.v[i + stride] = a - b;
    }
  constexpr float kScale = N == 64 ? 0.125f : 0.08838834764831845f;  // N^-1/2
#pragma GCC unroll 32
  for (int i = 0; i < Row<N>::kVectors; ++i) x.v[i] *= kScale;
}

template <int N, class T>
DSA_INLINE float prepare_and_quantize(const RowSteps& steps, const T* in, uint8_t* codes) {
  Row<N> x;
  load_row(in, x);
  if (steps.norm_weight != nullptr) {
    layer_norm(steps, x);
    round_row<T>(x);
  }
  if (steps.cos_sin != nullptr) rotate<T>(steps, x);
  if (steps.hadamard) {
    hadamard(x);
    round_row<T>(x);
  }
  return quantize_row(x, steps.ue8m0, codes);
}

// See Isa::quantize_bf16, quantize_fp32.
template <class T>
float quantize(const RowSteps& steps, const T* in, int n, uint8_t* codes) {
  return n == 64 ? prepare_and_quantize<64>(steps, in, codes)
                 : prepare_and_quantize<128>(steps, in, codes);
}

}  // namespace
}  // namespace dsa::cpu::DSA_ISA_NAMESPACE
