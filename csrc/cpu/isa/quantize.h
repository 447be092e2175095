// The quantiser: bitwise what dsa_kernels/reference/quantize.py computes, for any input.
#pragma once

#include "../../formats.h"
#include "rows.h"

namespace dsa::cpu::DSA_ISA_NAMESPACE {
namespace {

constexpr uint32_t kInfinityBits = 0x7f800000;

// Codes of |x| <= 448 * (1 + 2^-23), no NaN. Adding +-2^(e + 20), where 2^e is x's binade but at
// least 2^-6, rounds x to multiples of 2^(e - 3), the spacing of e4m3 there, ties to even; how many
// of them x is stands in the sum's last bits, and the code is that many plus 8 * (e + 6).
DSA_INLINE VecU encode(VecF x) {
  const VecU u = unsigned_bits(x);
  const VecU smallest = VecU{} + (121u << 23);  // 2^-6
  const VecU exponent = u & kInfinityBits;
  const VecU binade = (VecU)max_of((VecI)exponent, (VecI)smallest);
  // 56: 8 * (e + 6) less the exponent's bits >> 20, modulo 256.
  const VecU shifter = select_bits(0x7fffffff, binade + ((20u << 23) + 56), u);
  const VecU code = unsigned_bits(x + floats(shifter)) + (binade >> 20);
  return select_bits(0x7f, code, u >> 24);  // its upper bits, and the sign
}

// The same for any float: saturates, and every NaN is 0x7f.
inline uint8_t encode_any(float x) {
  const uint32_t u = float_to_bits(x), magnitude = u & 0x7fffffff;
  if (magnitude > kInfinityBits) return 0x7f;
  const uint32_t sign = u >> 24 & 0x80;
  if (magnitude >= 0x43e00000) return static_cast<uint8_t>(sign | 0x7e);  // 448
  if (magnitude < 0x3c800000) {                                           // 2^-6
    const float rounded = bits_to_float(magnitude) + 16384.0f;            // to multiples of 2^-9
    return static_cast<uint8_t>(sign | (float_to_bits(rounded) - 0x46800000));
  }
  const uint32_t normal = (magnitude + 0x7ffff + (magnitude >> 20 & 1) - (120u << 23)) >> 20;
  return static_cast<uint8_t>(sign | normal);
}

// amax / 448, or 2^ceil(log2(amax / 448)): amax's power of two over 2^8, and twice that if its
// mantissa is above that of 448 = 1.75 * 2^8. What the division would round away decides nothing.
inline float scale_of(uint32_t amax_bits, bool ue8m0) {
  if (!ue8m0 || amax_bits == kInfinityBits) return bits_to_float(amax_bits) / kFp8Max;
  return bits_to_float(((amax_bits + 0x1fffff) & kInfinityBits) - (8u << 23));
}

// A row with an infinity or a NaN.
template <int N>
__attribute__((noinline, cold)) float quantize_any(const Row<N>& x, bool ue8m0, uint8_t* codes) {
  float values[N];
  for (int i = 0; i < Row<N>::kVectors; ++i) store(values + i * kLanes, x.v[i]);
  int32_t amax = static_cast<int32_t>(float_to_bits(kAmaxFloor));
  for (float value : values) {
    const int32_t magnitude = static_cast<int32_t>(float_to_bits(value) & 0x7fffffff);
    if (magnitude <= static_cast<int32_t>(kInfinityBits) && magnitude > amax) amax = magnitude;
  }
  const float scale = scale_of(static_cast<uint32_t>(amax), ue8m0);
  for (int i = 0; i < N; ++i) codes[i] = encode_any(values[i] / scale);
  return scale;
}

#if DSA_VECTOR_BYTES == 64
// The largest or smallest of 32 elements.
DSA_INLINE uint32_t lane_min_u16(__m512i v) {
  const __m256i a = _mm256_min_epu16(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
  const __m128i b = _mm_min_epu16(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(b))) & 0xffff;
}
DSA_INLINE uint32_t lane_max_u16(__m512i v) {
  return 0xffff - lane_min_u16(_mm512_xor_si512(v, _mm512_set1_epi16(-1)));
}

// The codes of N bfloat16 over a power of two, in 16-bit integers: with the scale's exponent
// taken off, a code is the number's upper bits, rounded to 3 of mantissa.
template <int N>
struct BitsRow {
  static constexpr int kVectors = N / 32;
  __m512i v[kVectors];
};

template <int N>
DSA_INLINE BitsRow<N> load_bits(const uint16_t* in) {
  BitsRow<N> bits;
#pragma GCC unroll 4
  for (int i = 0; i < BitsRow<N>::kVectors; ++i) bits.v[i] = _mm512_loadu_si512(in + i * 32);
  return bits;
}

// Of floats that are bfloat16: their upper halves.
template <int N>
DSA_INLINE BitsRow<N> bfloat16_bits(const Row<N>& x) {
  // Words 1, 3, 5, ..., 63 of both.
#define DSA_ODD_WORDS(l) (4 * (l) + 1) | (4 * (l) + 3) << 16
  const __m512i order = (__m512i)VecI{DSA_EACH_LANE(DSA_ODD_WORDS)};
#undef DSA_ODD_WORDS
  BitsRow<N> bits;
#pragma GCC unroll 4
  for (int i = 0; i < BitsRow<N>::kVectors; ++i) {
    const __m512i first = (__m512i)x.v[2 * i], second = (__m512i)x.v[2 * i + 1];
    bits.v[i] = _mm512_permutex2var_epi16(first, order, second);
  }
  return bits;
}

// Codes of magnitudes below 2^-6 of the scale too: with d binades missing, 4 + d bits are rounded
// off the mantissa and its leading one.
template <int N>
DSA_INLINE void encode_bits(const BitsRow<N>& x, uint32_t exponent, bool all_normal,
                            uint8_t* codes) {
  const auto splat16 = [](uint32_t v) __attribute__((always_inline)) {
    return _mm512_set1_epi16(static_cast<int16_t>(v));
  };
  const __m512i magnitude = splat16(0x7fff), one = splat16(1);
  const uint32_t smallest = exponent - 6;  // the exponent of the least normal code
  BitsRow<N> code;
  if (all_normal) [[likely]] {
    // Half of a bit that is kept, less one if that is even; and code 8 for `smallest`.
    const __m512i bias = splat16(7 + (1 << 7) - (smallest << 7));
#pragma GCC unroll 4
    for (int i = 0; i < BitsRow<N>::kVectors; ++i) {
      const __m512i odd = _mm512_and_si512(_mm512_srli_epi16(x.v[i], 4), one);
      const __m512i m = _mm512_add_epi16(_mm512_and_si512(x.v[i], magnitude), bias);
      code.v[i] = _mm512_srli_epi16(_mm512_add_epi16(m, odd), 4);
    }
  } else {
    const __m512i least = splat16(smallest), eight = splat16(8), four = splat16(4);
#pragma GCC unroll 4
    for (int i = 0; i < BitsRow<N>::kVectors; ++i) {
      const __m512i m = _mm512_and_si512(x.v[i], magnitude), e = _mm512_srli_epi16(m, 7);
      const __m512i missing = _mm512_subs_epu16(least, e);
      const __m512i digits = _mm512_ternarylogic_epi32(splat16(0x7f), m, splat16(0x80), 0xea);
      const __m512i shift = _mm512_add_epi16(missing, four);
      const __m512i even = _mm512_andnot_si512(_mm512_srlv_epi16(digits, shift), one);
      const __m512i half = _mm512_sub_epi16(_mm512_sllv_epi16(eight, missing), even);
      const __m512i rounded = _mm512_srlv_epi16(_mm512_add_epi16(digits, half), shift);
      const __m512i binades = _mm512_slli_epi16(_mm512_subs_epu16(e, least), 3);
      code.v[i] = _mm512_add_epi16(rounded, binades);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < BitsRow<N>::kVectors; i += 2) {
    const auto with_sign = [&](int j) __attribute__((always_inline)) {
      return _mm512_ternarylogic_epi32(splat16(0x7f), code.v[j], _mm512_srli_epi16(x.v[j], 8),
                                       0xca);
    };
    const __m512i pairs = _mm512_packus_epi16(with_sign(i), with_sign(i + 1));
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    _mm512_storeu_si512(codes + i * 32, _mm512_permutexvar_epi64(order, pairs));
  }
}

// quantize_row with a power of two as scale.
template <int N>
DSA_INLINE float quantize_bits(const BitsRow<N>& x, uint8_t* codes) {
  const __m512i magnitude = _mm512_set1_epi16(0x7fff);
  __m512i low = _mm512_and_si512(x.v[0], magnitude), high = low;
#pragma GCC unroll 4
  for (int i = 1; i < BitsRow<N>::kVectors; ++i) {
    const __m512i m = _mm512_and_si512(x.v[i], magnitude);
    low = _mm512_min_epu16(low, m);
    high = _mm512_max_epu16(high, m);
  }
  const uint32_t largest = lane_max_u16(high) << 16;
  if (largest >= kInfinityBits) [[unlikely]] {
    Row<N> wide;
    load_row(reinterpret_cast<const uint16_t*>(x.v), wide);
    return quantize_any(wide, true, codes);
  }
  const uint32_t floor = float_to_bits(kAmaxFloor);
  const float scale = scale_of(largest > floor ? largest : floor, true);
  const uint32_t exponent = float_to_bits(scale) >> 23;
  const __m512i smallest = _mm512_set1_epi16(static_cast<int16_t>((exponent - 6) << 7));
  encode_bits(x, exponent, _mm512_cmplt_epu16_mask(low, smallest) == 0, codes);
  return scale;
}
#endif

// One scale and N codes. Where the scale is a power of two, its reciprocal is exact, and the
// product is the quotient: both are the rounding of one number.
template <int N>
DSA_INLINE float quantize_row(const Row<N>& x, bool ue8m0, uint8_t* codes) {
  // Magnitudes compare as integers. Two chains: a maximum waits for the one before.
  VecI amax[2] = {VecI{} + static_cast<int32_t>(float_to_bits(kAmaxFloor)), VecI{}};
#pragma GCC unroll 32
  for (int i = 0; i < Row<N>::kVectors; ++i)
    amax[i % 2] = max_of(amax[i % 2], bits(x.v[i]) & 0x7fffffff);
  const int32_t largest = lane_max(max_of(amax[0], amax[1]));
  if (largest >= static_cast<int32_t>(kInfinityBits)) [[unlikely]]
    return quantize_any(x, ue8m0, codes);
  const float scale = scale_of(static_cast<uint32_t>(largest), ue8m0);
  const auto encode_row = [&](auto scaled) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int i = 0; i < Row<N>::kVectors; i += 4) {
      store_bytes(codes + i * kLanes, encode(scaled(x.v[i])), encode(scaled(x.v[i + 1])),
                  encode(scaled(x.v[i + 2])), encode(scaled(x.v[i + 3])));
    }
  };
  if (ue8m0) {
    const VecF reciprocal = splat(bits_to_float((254u << 23) - float_to_bits(scale)));
    encode_row([&](VecF v) __attribute__((always_inline)) { return v * reciprocal; });
  } else {
    const VecF divisor = splat(scale);
    encode_row([&](VecF v) __attribute__((always_inline)) { return v / divisor; });
  }
  return scale;
}

}  // namespace
}  // namespace dsa::cpu::DSA_ISA_NAMESPACE
