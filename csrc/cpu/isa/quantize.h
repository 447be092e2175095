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

// 2^ceil(log2(x)) of a positive normal x, by exponent bits; +inf stays.
inline float round_up_to_power_of_two(float x) {
  return bits_to_float((float_to_bits(x) + 0x7fffff) & 0xff800000);
}

inline float scale_of(int32_t amax, bool ue8m0) {
  const float scale = bits_to_float(static_cast<uint32_t>(amax)) / kFp8Max;
  return ue8m0 ? round_up_to_power_of_two(scale) : scale;
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
  const float scale = scale_of(amax, ue8m0);
  for (int i = 0; i < N; ++i) codes[i] = encode_any(values[i] / scale);
  return scale;
}

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
  const float scale = scale_of(largest, ue8m0);
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
