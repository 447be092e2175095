// Numbers in and out of float, and into the words of dots.h.
#pragma once

#include "vec.h"

namespace dsa::cpu::DSA_ISA_NAMESPACE {
namespace {

void from_bfloat16(const uint16_t* in, float* out, int64_t n) {
  uint32_t* o = reinterpret_cast<uint32_t*>(out);
  for (int64_t i = 0; i < n; ++i) o[i] = static_cast<uint32_t>(in[i]) << 16;
}

// e4m3fn as float: the 7 magnitude bits placed at float's exponent are the value times 2^-120,
// subnormals included; 0x7f is NaN.
inline uint32_t float8_bits(uint32_t code) {
  union {
    uint32_t u;
    float f;
  } x;
  x.u = (code & 0x7f) << 20;
  x.f *= 0x1p120f;
  const uint32_t magnitude = (code & 0x7f) == 0x7f ? 0x7fc00000u : x.u;
  return magnitude | (code & 0x80) << 24;
}

void from_float8(const uint8_t* in, float* out, int64_t n) {
  uint32_t* o = reinterpret_cast<uint32_t*>(out);
  for (int64_t i = 0; i < n; ++i) o[i] = float8_bits(in[i]);
}

inline uint32_t round_to_bfloat16(uint32_t u) {
  const uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  return (u & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded;
}

void dequantize(const uint8_t* in, float scale, float* out, int64_t n) {
  uint32_t* o = reinterpret_cast<uint32_t*>(out);
  for (int64_t i = 0; i < n; ++i) {
    union {
      uint32_t u;
      float f;
    } x;
    x.u = float8_bits(in[i]);
    x.f *= scale;
    o[i] = round_to_bfloat16(x.u) << 16;
  }
}

void to_bfloat16(const float* in, uint16_t* out, int64_t n) {
  const uint32_t* u = reinterpret_cast<const uint32_t*>(in);
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<uint16_t>(round_to_bfloat16(u[i]));
}

// Rows to fp32 words.
void load_fp8_fp32(const uint8_t* in, int64_t stride, int rows, int n, uint32_t* out) {
  for (int r = 0; r < rows; ++r, in += stride, out += n)
    for (int i = 0; i < n; ++i) out[i] = float8_bits(in[i]);
}

void load_bf16_fp32(const uint16_t* in, int64_t stride, int rows, int n, uint32_t* out) {
  for (int r = 0; r < rows; ++r, in += stride, out += n)
    for (int i = 0; i < n; ++i) out[i] = static_cast<uint32_t>(in[i]) << 16;
}

void dequantize_fp32(const uint8_t* in, float scale, int n, uint32_t* out) {
  dequantize(in, scale, reinterpret_cast<float*>(out), n);
}

#if defined(__AVX512BF16__)
// bf16 images of the 128 e4m3 magnitudes, high and low bytes apart, as vpermi2b takes them.
struct Fp8Table {
  alignas(64) uint8_t high[128], low[128];
};
constexpr Fp8Table make_fp8_table() {
  Fp8Table t{};
  for (int code = 0; code < 128; ++code) {
    const int exponent = code >> 3, mantissa = code & 7;
    uint32_t b;
    if (code == 127) {
      b = 0x7fc0;
    } else if (exponent > 0) {
      b = (exponent + 120) << 7 | mantissa << 4;
    } else {  // subnormal: mantissa * 2^-9, normal in bf16
      const int top = mantissa >= 4 ? 2 : mantissa >= 2 ? 1 : 0;
      b = mantissa == 0 ? 0 : (118 + top) << 7 | ((mantissa << (7 - top)) & 0x7f);
    }
    t.high[code] = static_cast<uint8_t>(b >> 8);
    t.low[code] = static_cast<uint8_t>(b);
  }
  return t;
}
constexpr Fp8Table kFp8Table = make_fp8_table();

// Rows to bf16 words. Bytes are interleaved within 128 bits, so the dims of each 64 come out in
// another order, the same for every row; where n is no multiple of 64 they keep theirs.
void load_fp8_bf16(const uint8_t* in, int64_t stride, int rows, int n, uint32_t* out) {
  if (n % 64 != 0) {
    for (int r = 0; r < rows; ++r, in += stride) {
      uint16_t* o = reinterpret_cast<uint16_t*>(out) + int64_t{r} * n;
      for (int i = 0; i < n; ++i) o[i] = static_cast<uint16_t>(float8_bits(in[i]) >> 16);
    }
    return;
  }
  const __m512i high0 = _mm512_load_si512(kFp8Table.high);
  const __m512i high1 = _mm512_load_si512(kFp8Table.high + 64);
  const __m512i low0 = _mm512_load_si512(kFp8Table.low);
  const __m512i low1 = _mm512_load_si512(kFp8Table.low + 64);
  const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
  for (int r = 0; r < rows; ++r, in += stride) {
    for (int i = 0; i < n; i += 64, out += 32) {
      const __m512i codes = _mm512_loadu_si512(in + i);
      const __m512i low = _mm512_permutex2var_epi8(low0, codes, low1);
      __m512i high = _mm512_permutex2var_epi8(high0, codes, high1);
      high = _mm512_ternarylogic_epi32(high, codes, sign, 0xf8);  // high | (codes & sign)
      _mm512_storeu_si512(out, _mm512_unpacklo_epi8(low, high));
      _mm512_storeu_si512(out + 16, _mm512_unpackhi_epi8(low, high));
    }
  }
}

void load_bf16_bf16(const uint16_t* in, int64_t stride, int rows, int n, uint32_t* out) {
  for (int r = 0; r < rows; ++r, in += stride) {
    uint16_t* o = reinterpret_cast<uint16_t*>(out) + int64_t{r} * n;
    for (int i = 0; i < n; ++i) o[i] = in[i];
  }
}

// 16 codes as floats.
inline __m512 fp8_to_float(const uint8_t* in) {
  const __m512i codes = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
  // Sign, and the magnitude at float's exponent: the value times 2^-120, subnormals included.
  const __m512i shifted = _mm512_slli_epi32(codes, 20);
  const __m512i scaled = _mm512_ternarylogic_epi32(
      _mm512_and_si512(codes, _mm512_set1_epi32(static_cast<int>(0x80000000))), shifted,
      _mm512_set1_epi32(0x07f00000), 0xf8);
  const __m512 value = _mm512_mul_ps(_mm512_castsi512_ps(scaled), _mm512_set1_ps(0x1p120f));
  const __mmask16 nan = _mm512_cmpeq_epi32_mask(_mm512_and_si512(codes, _mm512_set1_epi32(0x7f)),
                                                _mm512_set1_epi32(0x7f));
  return _mm512_mask_mov_ps(value, nan, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000)));
}

void dequantize_bf16(const uint8_t* in, float scale, int n, uint32_t* out) {
  const __m512 s = _mm512_set1_ps(scale);
  int i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m512 a = _mm512_mul_ps(fp8_to_float(in + i), s);
    const __m512 b = _mm512_mul_ps(fp8_to_float(in + i + 16), s);
    _mm512_storeu_si512(out + i / 2, (__m512i)_mm512_cvtne2ps_pbh(b, a));
  }
  for (; i < n; ++i) {
    const float x = bits_to_float(float8_bits(in[i])) * scale;
    reinterpret_cast<uint16_t*>(out)[i] =
        static_cast<uint16_t>(round_to_bfloat16(float_to_bits(x)));
  }
}
#endif

}  // namespace
}  // namespace dsa::cpu::DSA_ISA_NAMESPACE
