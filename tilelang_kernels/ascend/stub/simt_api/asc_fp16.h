#pragma once

#include "simt_api/types.h"

float2 __half22float2(half2);
half2 __float22half2_rn(float2);
