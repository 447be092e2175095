// e4m3 codes to bf16 values.
#pragma once

#include <cuda_fp16.h>

#include "common.cuh"

namespace dsa {

__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Two codes to two values; exact, since f16 has all that e4m3 has.
__device__ __forceinline__ float2 e4m3_to_float(uint16_t codes) {
  uint32_t halves;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(codes));
  return __half22float2(*reinterpret_cast<const __half2*>(&halves));
}

// bf16 rounding of fp32 code x scale, of 4 codes. `bf16_scale`: bf16 can hold the scale, as it can
// powers of two. That spares conversions: codes are truncated to bf16 without loss, and the product
// of two bf16 rounds once, to the same value.
template <bool bf16_scale>
__device__ __forceinline__ uint2 dequantize(uint32_t codes, float scale) {
  uint16_t half[2];
  asm("mov.b32 {%0, %1}, %2;" : "=h"(half[0]), "=h"(half[1]) : "r"(codes));
  uint32_t out[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float2 value = e4m3_to_float(half[i]);
    if constexpr (bf16_scale) {
      const uint32_t upper =
          __byte_perm(__float_as_uint(value.x), __float_as_uint(value.y), 0x7632);
      const uint32_t factor = __byte_perm(__float_as_uint(scale), 0, 0x3232);
      asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(out[i]) : "r"(upper), "r"(factor));
    } else {
      out[i] = pack_bf16(value.x * scale, value.y * scale);
    }
  }
  return make_uint2(out[0], out[1]);
}

// The same of 8 codes.
template <bool bf16_scale>
__device__ __forceinline__ uint4 dequantize(uint32_t low, uint32_t high, float scale) {
  const uint2 a = dequantize<bf16_scale>(low, scale), b = dequantize<bf16_scale>(high, scale);
  return make_uint4(a.x, a.y, b.x, b.y);
}

// 2^(e - 127) as e8m0 has it: e = 0 is subnormal, e = 255 is NaN.
__device__ __forceinline__ float ue8m0_to_float(uint32_t e) {
  return __uint_as_float(e == 0 ? 0x00400000u : e == 255 ? 0x7fc00000u : e << 23);
}

}  // namespace dsa
