// Numbers in and out of float, and into the words of dots.h.
#pragma once

#include "vec.h"

namespace dsa::cpu::DSA_ISA_NAMESPACE {
namespace {

void from_bfloat16(const uint16_t* in, float* out, int64_t n) {
  uint32_t* o = reinterpret_cast<uint32_t*>(out);
  for (int64_t i = 0; i < n; ++i) o[i] = static_cast<uint32_t>(in[i]) << 16;
}

// e4m3fn as float: the 7 magnitude bits go to the top of float's mantissa, and its exponent is
// rebiased from 7 to 127. A subnormal, m * 2^-9, is (1 + m/8) * 2^-6 less 2^-6: no float on the way
// is subnormal, for which x86 cores take a slow path of 150 cycles. 0x7f is NaN.
inline uint32_t float8_bits(uint32_t code) {
  const uint32_t magnitude = code & 0x7f;
  const uint32_t normal = (magnitude << 20) + (120u << 23);
  const uint32_t subnormal = float_to_bits(bits_to_float(normal + (1u << 23)) - 0x1p-6f);
  const uint32_t number = magnitude < 8 ? subnormal : normal;
  return (magnitude == 0x7f ? 0x7fc00000u : number) | (code & 0x80) << 24;
}

void from_float8(const uint8_t* in, float* out, int64_t n) {
  uint32_t* o = reinterpret_cast<uint32_t*>(out);
  for (int64_t i = 0; i < n; ++i) o[i] = float8_bits(in[i]);
}

inline uint32_t round_to_bfloat16(uint32_t u) {
  const uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  return (u & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded;
}

void to_bfloat16(const float* in, uint16_t* out, int64_t n) {
  const uint32_t* u = reinterpret_cast<const uint32_t*>(in);
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<uint16_t>(round_to_bfloat16(u[i]));
}

void copy_bfloat16(const void* from, void* to, int64_t n) {
  typedef uint16_t Bits __attribute__((vector_size(DSA_VECTOR_BYTES)));
  typedef uint16_t BitsU __attribute__((vector_size(DSA_VECTOR_BYTES), aligned(1), may_alias));
  typedef uint16_t BitU __attribute__((aligned(1), may_alias));
  const BitU* in = static_cast<const BitU*>(from);
  BitU* out = static_cast<BitU*>(to);
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const Bits x = *reinterpret_cast<const BitsU*>(in + i);
    *reinterpret_cast<BitsU*>(out + i) = (x & 0x7fff) > 0x7f80 ? Bits{} + 0x7fc0 : x;
  }
  for (; i < n; ++i) out[i] = (in[i] & 0x7fff) > 0x7f80 ? 0x7fc0 : in[i];
}

// memcpy whose whole cache lines go around the caches.
void stream(const void* from, void* to, int64_t bytes) {
  const char* in = static_cast<const char*>(from);
  char* out = static_cast<char*>(to);
#if defined(__x86_64__)
  constexpr int kLine = 64;
  const int64_t to_line = -reinterpret_cast<intptr_t>(out) & (kLine - 1);
  const int64_t head = to_line < bytes ? to_line : bytes;
  __builtin_memcpy(out, in, head);
  int64_t i = head;
  for (; i + kLine <= bytes; i += kLine) {
#if DSA_VECTOR_BYTES == 64
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out + i), _mm512_loadu_si512(in + i));
#else
    for (int j = 0; j < kLine; j += 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(out + i + j),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i + j)));
    }
#endif
  }
  __builtin_memcpy(out + i, in + i, bytes - i);
#else
  __builtin_memcpy(out, in, bytes);
#endif
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

// The bits of bf16(code * scale), not yet shifted into a float's place.
inline uint32_t dequantized(uint8_t code, float scale) {
  return round_to_bfloat16(float_to_bits(bits_to_float(float8_bits(code)) * scale));
}

void dequantize_fp32(const uint8_t* in, const float* scales, int groups, int n, uint32_t* out) {
  for (int g = 0; g < groups; ++g, in += n, out += n)
    for (int i = 0; i < n; ++i) out[i] = dequantized(in[i], scales[g]) << 16;
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

// 64 codes as bf16, in their order.
struct Bf16x64 {
  __m512i first, second;
};
inline Bf16x64 fp8_to_bf16(__m512i codes) {
  // Unpacking interleaves within 128 bits: bring the 8 codes of each half there first.
  codes = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), codes);
  const __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(kFp8Table.low), codes,
                                               _mm512_load_si512(kFp8Table.low + 64));
  __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(kFp8Table.high), codes,
                                          _mm512_load_si512(kFp8Table.high + 64));
  const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
  high = _mm512_ternarylogic_epi32(high, codes, sign, 0xf8);  // high | (codes & sign)
  return {_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high)};
}

// Rows to bf16 words.
void load_fp8_bf16(const uint8_t* in, int64_t stride, int rows, int n, uint32_t* out) {
  for (int r = 0; r < rows; ++r, in += stride, out += n / 2) {
    int i = 0;
    for (; i + 64 <= n; i += 64) {
      const Bf16x64 x = fp8_to_bf16(_mm512_loadu_si512(in + i));
      _mm512_storeu_si512(out + i / 2, x.first);
      _mm512_storeu_si512(out + i / 2 + 16, x.second);
    }
    uint16_t* o = reinterpret_cast<uint16_t*>(out);
    for (; i < n; ++i) o[i] = static_cast<uint16_t>(float8_bits(in[i]) >> 16);
  }
}

void load_bf16_bf16(const uint16_t* in, int64_t stride, int rows, int n, uint32_t* out) {
  uint16_t* to = reinterpret_cast<uint16_t*>(out);
  for (int r = 0; r < rows; ++r, in += stride, to += n) __builtin_memcpy(to, in, n * sizeof *in);
}

// bf16 times a float, rounded to bf16.
inline __m512i scale_bf16(__m512i x, __m512 scale) {
  const auto widen = [](__m256i half) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  };
  const __m512 first = _mm512_mul_ps(widen(_mm512_castsi512_si256(x)), scale);
  const __m512 second = _mm512_mul_ps(widen(_mm512_extracti64x4_epi64(x, 1)), scale);
  return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

// Codes times a scale whose products are all normal; false, and out is undefined, where a code is
// NaN. A power of two is added to the exponents.
template <bool PowerOfTwo>
inline bool dequantize_group(const uint8_t* in, float scale, int n, uint16_t* out) {
  const int exponent = static_cast<int>(float_to_bits(scale) >> 23) - 127;
  const __m512i shift = _mm512_set1_epi16(static_cast<int16_t>(exponent * 128));
  const __m512i magnitude = _mm512_set1_epi16(0x7fff), nan = _mm512_set1_epi8(0x7f);
  const auto scaled = [&](__m512i x) {
    if (!PowerOfTwo) return scale_bf16(x, _mm512_set1_ps(scale));
    return _mm512_mask_add_epi16(x, _mm512_test_epi16_mask(x, magnitude), x, shift);
  };
  __mmask64 nans = 0;
  for (int i = 0; i < n; i += 64) {
    const __m512i codes = _mm512_loadu_si512(in + i);
    nans |= _mm512_cmpeq_epi8_mask(_mm512_and_si512(codes, nan), nan);
    const Bf16x64 x = fp8_to_bf16(codes);
    _mm512_storeu_si512(out + i, scaled(x.first));
    _mm512_storeu_si512(out + i + 32, scaled(x.second));
  }
  return nans == 0;
}
#endif

// See Isa::dequantize_bf16.
void dequantize_bf16(const uint8_t* in, const float* scales, int groups, int n, uint16_t* out) {
  for (int g = 0; g < groups; ++g, in += n, out += n) {
#if defined(__AVX512BF16__)
    const uint32_t bits = float_to_bits(scales[g]), exponent = bits >> 23;  // large if negative
    const bool normal = exponent >= 10 && exponent <= 246;  // so are products with 2^-9 and 448
    if (normal && (bits & 0x7fffff) == 0 && dequantize_group<true>(in, scales[g], n, out)) continue;
    if (normal && (bits & 0x7fffff) != 0 && dequantize_group<false>(in, scales[g], n, out))
      continue;
#endif
    for (int i = 0; i < n; ++i) out[i] = static_cast<uint16_t>(dequantized(in[i], scales[g]));
  }
}

#if defined(__AVX512BF16__)
void dequantize_words_bf16(const uint8_t* in, const float* scales, int groups, int n,
                           uint32_t* out) {
  dequantize_bf16(in, scales, groups, n, reinterpret_cast<uint16_t*>(out));
}
#endif

}  // namespace
}  // namespace dsa::cpu::DSA_ISA_NAMESPACE
