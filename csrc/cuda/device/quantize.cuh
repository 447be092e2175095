// The quantiser: bitwise dsa_kernels/reference/quantize.py, for any input. e4m3 by arithmetic, as
// sm_80 has no conversion to it.
#pragma once

#include "../../formats.h"
#include "vector.cuh"

namespace dsa {

constexpr uint32_t kInfinityBits = 0x7f800000;

// The e4m3 code nearest to |x|, ties to even, saturating, with the sign of `sign`; NaN is 0x7f.
//
// Adding 2^(e + 20), where 2^e is |x|'s binade but at least 2^-6, rounds |x| to multiples of
// 2^(e - 3), the spacing of e4m3 there, ties to even. How many of them |x| is stands in the sum's
// last bits, and the code is that many plus 8 * (e + 6).
__device__ __forceinline__ uint32_t e4m3_code(float x, float sign) {
  constexpr uint32_t kLeastNormal = 121u << 23;  // 2^-6
  const float magnitude = fminf(fabsf(x), kFp8Max);
  const uint32_t binade = max(__float_as_uint(magnitude) & kInfinityBits, kLeastNormal);
  // 56: 8 * (e + 6) less the exponent's bits >> 20, modulo 256.
  const uint32_t shifter = binade + ((20u << 23) + 56);
  const uint32_t sum = __float_as_uint(__fadd_rn(magnitude, __uint_as_float(shifter)));
  const uint32_t code = sum + (binade >> 20);
  const uint32_t signed_code = (code & 0x7f) | (__float_as_uint(sign) >> 24 & 0x80);
  return x != x ? 0x7f : signed_code;
}

// x / d, rounded once, where `reciprocal` is the float nearest to 1 / d: an estimate and two
// corrections, as a division is, without its detour for quotients that are subnormal. Of those, and
// of zeros, magnitude and sign may be off.
__device__ __forceinline__ float divide(float x, float d, float reciprocal) {
  float q = __fmul_rn(x, reciprocal);
  q = __fmaf_rn(__fmaf_rn(-q, d, x), reciprocal, q);
  return __fmaf_rn(__fmaf_rn(-q, d, x), reciprocal, q);
}

// The largest magnitude that is not NaN, and `largest`.
__device__ __forceinline__ float max_magnitude(const float (&x)[8], float largest) {
#pragma unroll
  for (float value : x) largest = fmaxf(largest, fabsf(value));
  return largest;
}

// What a group of numbers is divided by. 0 is the reciprocal of an infinity, so that finite numbers
// give 0 and infinite ones NaN.
struct Scale {
  float scale, divisor, reciprocal;
  bool ue8m0;

  // amax / 448, or 2^ceil(log2(amax / 448)): amax's power of two over 2^8, and twice that if its
  // mantissa is above that of 448 = 1.75 * 2^8. What the division would round away decides nothing.
  // The reciprocal of a power of two is exact, so a product with it is the quotient.
  __device__ __forceinline__ Scale(float amax, bool ue8m0) : ue8m0(ue8m0) {
    const bool finite = __float_as_uint(amax) < kInfinityBits;
    if (ue8m0) {
      const uint32_t power = ((__float_as_uint(amax) + 0x1fffff) & kInfinityBits) - (8u << 23);
      divisor = __uint_as_float(power);
      reciprocal = __uint_as_float((254u << 23) - power);
    } else {
      divisor = divide(amax, kFp8Max, 1.0f / kFp8Max);
      reciprocal = __frcp_rn(divisor);
    }
    scale = finite ? divisor : __uint_as_float(kInfinityBits);
    divisor = finite ? divisor : 0.0f;
    reciprocal = finite ? reciprocal : 0.0f;
  }

  __device__ __forceinline__ Words<8> codes(const float (&x)[8]) const {
    float quotient[8];
#pragma unroll
    for (int i = 0; i < 8; ++i)
      quotient[i] = ue8m0 ? __fmul_rn(x[i], reciprocal) : divide(x[i], divisor, reciprocal);
    Words<8> w;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const auto code = [&](int j) { return e4m3_code(quotient[4 * i + j], x[4 * i + j]); };
      w.at[i] = code(0) | code(1) << 8 | code(2) << 16 | code(3) << 24;
    }
    return w;
  }
};

}  // namespace dsa
