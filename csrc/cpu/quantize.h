// The quantiser that cache writers and the indexer's input share; bitwise what
// dsa_kernels/reference/quantize.py computes, for any input (the build never contracts to fma).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../formats.h"

namespace dsa::cpu {

constexpr uint8_t kFp8Nan = 0x7f;

inline uint32_t float_bits(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return u;
}
inline float bits_float(uint32_t u) {
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}

// e4m3fn nearest to x, ties to even, saturating at +-448; every NaN is 0x7f. Vectorises in a loop.
inline uint8_t float_to_fp8(float x) {
  const int32_t u = static_cast<int32_t>(float_bits(x));
  const int32_t sign = (u >> 24) & 0x80;
  const int32_t unclamped = u & 0x7fffffff;
  const int32_t max = 0x43e00000;  // 448
  const int32_t magnitude = unclamped < max ? unclamped : max;
  // Normal: round the mantissa to 3 bits and rebias the exponent from 127 to 7.
  const int32_t normal = (magnitude + 0x7ffff + ((magnitude >> 20) & 1) - (120 << 23)) >> 20;
  // Below 2^-6: adding 2^14 rounds to multiples of 2^-9, the spacing of subnormals.
  const int32_t subnormal =
      static_cast<int32_t>(float_bits(bits_float(static_cast<uint32_t>(magnitude)) + 16384.0f)) -
      0x46800000;
  const int32_t code = (magnitude < 0x3c800000 ? subnormal : normal) | sign;
  return static_cast<uint8_t>(unclamped > 0x7f800000 ? kFp8Nan : code);
}

// 2^ceil(log2(x)) of a positive normal x, by exponent bits; +inf stays.
inline float round_up_to_power_of_two(float x) {
  return bits_float((float_bits(x) + 0x7fffff) & 0xff800000);
}

// One scale and n codes: scale = max(amax, 1e-4) / 448, amax ignoring NaN, rounded up to a power of
// two if ue8m0; code = x / scale, a true division. Bitwise what the reference's quantize_groups
// gives, for any x.
inline void quantize_group(const float* x, int n, bool ue8m0, uint8_t* codes, float* scale) {
  // Magnitudes compare as integers: a maximum over floats would not vectorise.
  int32_t amax = static_cast<int32_t>(float_bits(kAmaxFloor));
  for (int i = 0; i < n; ++i) {
    const int32_t magnitude = static_cast<int32_t>(float_bits(x[i]) & 0x7fffffff);
    const int32_t number = magnitude > 0x7f800000 ? 0 : magnitude;
    amax = number > amax ? number : amax;
  }
  float s = bits_float(static_cast<uint32_t>(amax)) / kFp8Max;
  if (ue8m0) s = round_up_to_power_of_two(s);
  for (int i = 0; i < n; ++i) codes[i] = float_to_fp8(x[i] / s);
  *scale = s;
}

}  // namespace dsa::cpu
