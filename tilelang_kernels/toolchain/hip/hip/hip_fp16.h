// A pair of halves, through which TileLang reads elements of half vectors. Scalars are _Float16.
#pragma once

#include <hip/hip_runtime.h>

struct __align__(4) half2 {
  _Float16 x, y;
};
