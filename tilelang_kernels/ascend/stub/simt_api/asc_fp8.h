#pragma once

#include "simt_api/types.h"

enum __asc_saturation_t { __ASC_NOSAT, __ASC_SATFINITE };
enum __asc_fp8_interpretation_t { __ASC_E4M3, __ASC_E5M2 };
using __asc_fp8x2_storage_t = uint16_t;

__asc_fp8x2_storage_t __asc_cvt_float2_to_fp8x2(float2, __asc_saturation_t,
                                                __asc_fp8_interpretation_t);
float2 __e4m3x22float2(float8_e4m3x2_t);
float2 __e5m2x22float2(float8_e5m2x2_t);
