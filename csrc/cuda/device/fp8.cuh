// e4m3 codes to bf16 values.
#pragma once

#include <cuda_fp16.h>

#include "common.cuh"

namespace dsa {

// Two codes to two values; exact, since f16 has all that e4m3 has.
__device__ __forceinline__ float2 e4m3_to_float(uint16_t codes) {
  uint32_t halves;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(codes));
  return __half22float2(*reinterpret_cast<const __half2*>(&halves));
}

__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// bf16 rounding of fp32 code x scale, of 8 codes.
__device__ __forceinline__ uint4 dequantize(uint32_t low, uint32_t high, float scale) {
  uint32_t out[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t word = i < 2 ? low : high;
    const float2 value = e4m3_to_float(static_cast<uint16_t>(word >> 16 * (i % 2)));
    out[i] = pack_bf16(value.x * scale, value.y * scale);
  }
  return make_uint4(out[0], out[1], out[2], out[3]);
}

// 2^(e - 127) as e8m0 has it: e = 0 is subnormal, e = 255 is NaN.
__device__ __forceinline__ float ue8m0_to_float(uint32_t e) {
  return __uint_as_float(e == 0 ? 0x00400000u : e == 255 ? 0x7fc00000u : e << 23);
}

}  // namespace dsa
