// fp8 as the target converts it: FNUZ on gfx942, OCP from gfx950 on. ROCm has all formats
// everywhere, the target's by instruction and the others in software; here the others do not exist,
// so that what compiles is in hardware.
#pragma once

#include <hip/hip_runtime.h>

enum __hip_saturation_t { __HIP_NOSAT, __HIP_SATFINITE };
enum __hip_fp8_interpretation_t { __HIP_E4M3, __HIP_E5M2, __HIP_E4M3_FNUZ, __HIP_E5M2_FNUZ };

namespace hip_headers {

#if defined(__gfx942__)
inline constexpr auto kE4M3 = __HIP_E4M3_FNUZ, kE5M2 = __HIP_E5M2_FNUZ;
inline constexpr float kE4M3Max = 240.0f;
#else
inline constexpr auto kE4M3 = __HIP_E4M3, kE5M2 = __HIP_E5M2;
inline constexpr float kE4M3Max = 448.0f;
#endif
inline constexpr float kE5M2Max = 57344.0f;

// The instruction converts what exceeds the largest number to infinity or NaN. An infinity or NaN
// is not clamped: the median of a NaN and two bounds would be a number.
__device__ __forceinline__ float saturate(float x, float largest) {
  return __builtin_isfinite(x) ? __builtin_amdgcn_fmed3f(x, largest, -largest) : x;
}

}  // namespace hip_headers

__device__ __forceinline__ unsigned char __hip_cvt_float_to_fp8(float x,
                                                                __hip_saturation_t saturation,
                                                                __hip_fp8_interpretation_t format) {
  using namespace hip_headers;
  const bool e4m3 = format == kE4M3;
  if (saturation == __HIP_SATFINITE) x = saturate(x, e4m3 ? kE4M3Max : kE5M2Max);
  return e4m3 ? __builtin_amdgcn_cvt_pk_fp8_f32(x, x, 0, false)
              : __builtin_amdgcn_cvt_pk_bf8_f32(x, x, 0, false);
}

namespace hip_headers {

template <__hip_fp8_interpretation_t format>
struct Fp8 {
  unsigned char __x;
  Fp8() = default;
  __device__ Fp8(float x) : __x(__hip_cvt_float_to_fp8(x, __HIP_SATFINITE, format)) {}
  __device__ operator float() const {
    return format == kE4M3 ? __builtin_amdgcn_cvt_f32_fp8(__x, 0)
                           : __builtin_amdgcn_cvt_f32_bf8(__x, 0);
  }
};

template <__hip_fp8_interpretation_t format>
struct Fp8x2 {
  unsigned short __x;
};

template <__hip_fp8_interpretation_t format>
struct Fp8x4 {
  unsigned __x;
};

}  // namespace hip_headers

#if defined(__gfx942__)
#define HIP_FORMAT(name) name##_fnuz
#else
#define HIP_FORMAT(name) name
#endif
using HIP_FORMAT(__hip_fp8_e4m3) = hip_headers::Fp8<hip_headers::kE4M3>;
using HIP_FORMAT(__hip_fp8_e5m2) = hip_headers::Fp8<hip_headers::kE5M2>;
using HIP_FORMAT(__hip_fp8x2_e4m3) = hip_headers::Fp8x2<hip_headers::kE4M3>;
using HIP_FORMAT(__hip_fp8x2_e5m2) = hip_headers::Fp8x2<hip_headers::kE5M2>;
using HIP_FORMAT(__hip_fp8x4_e4m3) = hip_headers::Fp8x4<hip_headers::kE4M3>;
using HIP_FORMAT(__hip_fp8x4_e5m2) = hip_headers::Fp8x4<hip_headers::kE5M2>;
#undef HIP_FORMAT
