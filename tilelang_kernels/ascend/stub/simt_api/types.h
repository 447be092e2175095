// Types that CANN's compiler knows by itself, and the qualifiers of memories and functions.
// Memories are address spaces: a pointer into one is none into another.
#pragma once

#include <cstdint>
#include <type_traits>

#define __gm__ __attribute__((address_space(1)))
#define __ubuf__ __attribute__((address_space(2)))
#define __cbuf__ __attribute__((address_space(3)))
#define __ca__ __attribute__((address_space(4)))
#define __cb__ __attribute__((address_space(5)))
#define __cc__ __attribute__((address_space(6)))

#define __global__
#define __aicore__
#define __mix__(cubes, vectors)
#define __simt_vf__
#define __simt_callee__
#define __simd_vf__
#define __simd_callee__
#define __SIMT_DEVICE_FUNCTIONS_DECL__
#define __launch_bounds__(threads)

using half = _Float16;
using bfloat16_t = __bf16;
struct float8_e4m3_t {
  uint8_t bits;
};
struct float8_e5m2_t {
  uint8_t bits;
};
struct float8_e8m0_t {
  uint8_t bits;
};
struct float4_e2m1x2_t {
  uint8_t bits;
};
struct float4_e1m2x2_t {
  uint8_t bits;
};
using fp8_e8m0_t = float8_e8m0_t;
struct float8_e4m3x2_t {
  float8_e4m3_t x, y;
};
struct float8_e5m2x2_t {
  float8_e5m2_t x, y;
};
struct half2 {
  half x, y;
};
struct bfloat16x2_t {
  bfloat16_t x, y;
};
struct float2 {
  float x, y;
};
