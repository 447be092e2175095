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
__attribute__((noinline)) void rotate_any(const RowSteps& steps, const float* cos_sin, Row<N>& x) {
  float values[N];
  for (int i = 0; i < Row<N>::kVectors; ++i) store(values + i * kLanes, x.v[i]);
  const int half = steps.rope_dim / 2;
  const int step = steps.interleaved ? 2 : 1, partner = steps.interleaved ? 1 : half;
  const auto plain = [](float v) { return v != v ? __builtin_nanf("") : v; };
  for (int i = 0; i < half; ++i) {
    float& first = values[i * step];
    float& second = values[i * step + partner];
    const float cos = plain(cos_sin[i]), sin = plain(cos_sin[half + i]);
    const float rotated = first * cos - second * sin;
    second = second * cos + first * sin;
    first = rotated;
  }
  load_row(values, x);
  round_row<T>(x);
}

template <class T, int N>
DSA_INLINE void rotate(const RowSteps& steps, const float* cos_sin, Row<N>& x) {
  if (steps.rope_dim != kRopeFast) {
    rotate_any<T>(steps, cos_sin, x);
    return;
  }
  if (steps.interleaved) {
    rotate_interleaved(cos_sin, x);
  } else {
    rotate_neox(cos_sin, x);
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

// Rows come from memory one after the other; hardware alone does not read far enough ahead.
constexpr int64_t kAheadBytes = 10 << 10;

template <int N, class T>
DSA_INLINE void prefetch_row(const T* in) {
  constexpr int kBytes = N * sizeof(T);
  const char* ahead = reinterpret_cast<const char*>(in) + kAheadBytes;
#pragma GCC unroll 8
  for (int b = 0; b < kBytes; b += 64) __builtin_prefetch(ahead + b);
}

// K rows together, step by step: each step of a row waits long for the one before.
template <int N, int K, class T>
DSA_INLINE void prepare_and_quantize(const RowSteps& steps, const QuantizeRows<T>& rows,
                                     int first) {
  Row<N> x[K];
  const auto each = [](auto step) __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (int k = 0; k < K; ++k) step(k);
  };
  each([&](int k) __attribute__((always_inline)) {
    const T* in = rows.in + (first + k) * rows.stride;
    prefetch_row<N>(in);
    load_row(in, x[k]);
  });
  if (steps.norm_weight != nullptr) {
    each([&](int k) __attribute__((always_inline)) {
      layer_norm(steps, x[k]);
      round_row<T>(x[k]);
    });
  }
  if (steps.rope_dim != 0) {
    each([&](int k) __attribute__((always_inline)) {
      const float* cos_sin = rows.cos_sin[first + k];
      if (cos_sin != nullptr) rotate<T>(steps, cos_sin, x[k]);
    });
  }
  if (steps.hadamard) {
    each([&](int k) __attribute__((always_inline)) {
      hadamard(x[k]);
      round_row<T>(x[k]);
    });
  }
  each([&](int k) __attribute__((always_inline)) {
    uint8_t* codes = rows.codes + int64_t{first + k} * N;
    float& scale = rows.scales[first + k];
    if (steps.rope_dim != 0 && rows.cos_sin[first + k] == nullptr) {
      __builtin_memset(codes, 0x7f, N);
      scale = __builtin_nanf("");
      return;
    }
#if DSA_VECTOR_BYTES == 64
    if (sizeof(T) == 2 && steps.ue8m0) {
      scale = quantize_bits(bfloat16_bits(x[k]), codes);
      return;
    }
#endif
    scale = quantize_row(x[k], steps.ue8m0, codes);
  });
}

template <int N, class T>
void quantize_rows(const RowSteps& steps, const QuantizeRows<T>& rows) {
#if DSA_VECTOR_BYTES == 64
  if constexpr (sizeof(T) == 2) {
    if (steps.ue8m0 && !steps.any()) {
      for (int i = 0; i < rows.count; ++i) {
        const T* in = rows.in + i * rows.stride;
        prefetch_row<N>(in);
        rows.scales[i] = quantize_bits(load_bits<N>(in), rows.codes + int64_t{i} * N);
      }
      return;
    }
  }
#endif
  constexpr int K = DSA_VECTOR_BYTES == 64 ? 2 : 1;  // what the registers hold
  int i = 0;
  for (; i + K <= rows.count; i += K) prepare_and_quantize<N, K>(steps, rows, i);
  for (; i < rows.count; ++i) prepare_and_quantize<N, 1>(steps, rows, i);
}

// See Isa::quantize_bf16, quantize_fp32.
template <class T>
void quantize(const RowSteps& steps, const QuantizeRows<T>& rows) {
  if (rows.n == 64) {
    quantize_rows<64>(steps, rows);
  } else {
    quantize_rows<128>(steps, rows);
  }
}

}  // namespace
}  // namespace dsa::cpu::DSA_ISA_NAMESPACE
