// The quantiser: bitwise dsa_kernels/reference/quantize.py, for any input. e4m3 by arithmetic, as
// sm_80 has no conversion to it.
#pragma once

#include "../../formats.h"
#include "vector.cuh"

namespace dsa {

constexpr uint32_t kInfinityBits = 0x7f800000;

// The e4m3 codes nearest to |x|, ties to even, saturating, with the signs of `signs`; no NaN.
//
// Adding 2^(e + 20), where 2^e is |x|'s binade but at least 2^-6, rounds |x| to multiples of
// 2^(e - 3), the spacing of e4m3 there, ties to even. How many of them |x| is stands in the sum's
// last bits, and the code is that many plus 8 * (e + 6).
__device__ __forceinline__ uint32_t e4m3_codes(const float (&x)[4], const float (&signs)[4]) {
  // 8 * (e + 6) less the bits of 2^(e + 20) >> 20, modulo 256.
  constexpr uint32_t kBias = 0x98;
  uint32_t codes[4], sign_bits[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float magnitude = fminf(fabsf(x[i]), kFp8Max);
    const float shifted = __fmul_rn(fmaxf(magnitude, 0x1p-6f), 0x1p20f);
    const uint32_t shifter = (__float_as_uint(shifted) & kInfinityBits) | kBias;
    const float sum = __fadd_rn(magnitude, __uint_as_float(shifter));
    codes[i] = __float_as_uint(sum) + (shifter >> 20);  // in its last 7 bits
    sign_bits[i] = __float_as_uint(signs[i]);
  }
  const auto bytes = [](const uint32_t (&words)[4], uint32_t pair) {
    return __byte_perm(__byte_perm(words[0], words[1], pair), __byte_perm(words[2], words[3], pair),
                       0x5410);
  };
  return (bytes(codes, 0x40) & 0x7f7f7f7f) | (bytes(sign_bits, 0x73) & 0x80808080);
}

// x / d, rounded once, from `estimate` = x * reciprocal, where that is the float nearest to 1 / d:
// two corrections, as a division makes them, without its detour for quotients that are subnormal.
// Of those, and of zeros, magnitude and sign may be off.
__device__ __forceinline__ float corrected(float estimate, float x, float d, float reciprocal) {
  const float q = __fmaf_rn(__fmaf_rn(-estimate, d, x), reciprocal, estimate);
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
      const uint32_t power =
          ((__float_as_uint(amax) + (DSA_FAULT == 516 ? 0x200000 : 0x1fffff)) & kInfinityBits) -
          (8u << 23);
      divisor = __uint_as_float(power);
      reciprocal = __uint_as_float((254u << 23) - power);
    } else {
      constexpr float kReciprocal = 1.0f / kFp8Max;
      divisor = corrected(__fmul_rn(amax, kReciprocal), amax, kFp8Max, kReciprocal);
      reciprocal = __frcp_rn(divisor);
    }
    scale = finite ? divisor : __uint_as_float(kInfinityBits);
    divisor = finite ? divisor : 0.0f;
    reciprocal = finite ? reciprocal : 0.0f;
  }

  // Of all lanes of the warp together; NaN is 0x7f.
  __device__ __forceinline__ Words<8> codes(const float (&x)[8]) const {
    float quotients[2][4], numbers[2][4];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      numbers[i / 4][i % 4] = x[i];
      quotients[i / 4][i % 4] = __fmul_rn(x[i], reciprocal);
    }
    // At once: element by element it would be predicated, and cost as much where it is not done.
    if (!ue8m0) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        float& quotient = quotients[i / 4][i % 4];
        quotient = corrected(quotient, x[i], divisor, reciprocal);
      }
    }
    Words<8> w;
    bool nan = false;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float (&q)[4] = quotients[half];
      w.at[half] = e4m3_codes(q, numbers[half]);
      nan |= isunordered(q[0], q[1]) || isunordered(q[2], q[3]);
    }
    // By warps: else the compiler drops this test, and makes those of the elements always.
    if (DSA_FAULT != 515 && __any_sync(0xffffffff, nan)) {
#pragma unroll
      for (int i = 0; i < 8; ++i)
        if (isnan(quotients[i / 4][i % 4]))
          w.at[i / 4] = (w.at[i / 4] & ~(0xffu << 8 * (i % 4))) | 0x7fu << 8 * (i % 4);
    }
    return w;
  }
};

}  // namespace dsa
