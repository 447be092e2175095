// bfloat16 as bits, with arithmetic in float.
#pragma once

#include <hip/hip_runtime.h>

namespace hip_headers {

// Round to nearest even. In integers, as ROCm's type does it: with the compiler's __bf16, gfx950
// would get v_cvt_pk_bf16_f32, and registers and instructions would not be those of a ROCm build.
__device__ __forceinline__ uint16_t bfloat16_bits(float x) {
  constexpr uint32_t kExponent = 0x7f800000;
  const auto bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t high = bits >> 16;
  const uint32_t rounded = (bits + 0x7fff + (high & 1)) >> 16;
  // A NaN whose payload lies in the low half would turn into an infinity.
  const uint32_t special = high | ((bits & 0xffff) != 0);
  return (bits & kExponent) == kExponent ? special : rounded;
}

}  // namespace hip_headers

struct hip_bfloat16 {
  uint16_t data;

  hip_bfloat16() = default;
  // Explicit, as in ROCm's header: code that leans on an implicit rounding must not compile here.
  __device__ explicit hip_bfloat16(float x) : data(hip_headers::bfloat16_bits(x)) {}
  // Assignment rounds without a cast there as well.
  __device__ hip_bfloat16& operator=(float x) {
    data = hip_headers::bfloat16_bits(x);
    return *this;
  }
  __device__ operator float() const { return __builtin_bit_cast(float, uint32_t{data} << 16); }
};

#define HIP_BFLOAT16_OPERATOR(op)                                                       \
  __device__ __forceinline__ hip_bfloat16 operator op(hip_bfloat16 a, hip_bfloat16 b) { \
    return hip_bfloat16(float(a) op float(b));                                          \
  }
HIP_BFLOAT16_OPERATOR(+)
HIP_BFLOAT16_OPERATOR(-)
HIP_BFLOAT16_OPERATOR(*)
HIP_BFLOAT16_OPERATOR(/)
#undef HIP_BFLOAT16_OPERATOR
