#pragma once

#include "simt_api/types.h"

float2 __bfloat1622float2(bfloat16x2_t);
bfloat16x2_t __float22bfloat162_rn(float2);
