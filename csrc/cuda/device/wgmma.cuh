// wgmma: D [64 x N] += A [64 x K] B [K x N] by a warpgroup, fp32 accumulation, K of 32 bytes.
//
// A and B lie in shared memory as tensor copies leave them, or A in registers. The thread's part of
// D, for warp w and lane l of the group: d[4 j + 2 h + e] is row 16 w + l / 4 + 8 h, column
// 8 j + 2 (l % 4) + e. A fragment of bf16 A [64 x 16] in registers is four pairs of that pattern:
// (row l / 4, columns 2 (l % 4)), (+8 rows), (+8 columns), (+8 rows and columns).
#pragma once

#include "common.cuh"

namespace dsa {

enum class Major : int { kK = 0, kMN = 1 };  // the dimension that is contiguous in memory
enum class Swizzle : uint64_t { kNone = 0, k128 = 1, k64 = 2, k32 = 3 };

// Descriptor of a matrix in shared memory; strides in bytes (PTX ISA, "Matrix descriptor format").
// K-major with a swizzle: `stride` separates groups of 8 rows, `leading` is not used.
// MN-major: `leading` separates blocks of one swizzle width along MN, `stride` groups of 8 along K.
__device__ __forceinline__ uint64_t matrix_descriptor(const void* matrix, Swizzle swizzle,
                                                      uint32_t stride, uint32_t leading = 16) {
  return (shared_address(matrix) & 0x3ffff) >> 4 | uint64_t{leading >> 4} << 16 |
         uint64_t{stride >> 4} << 32 | static_cast<uint64_t>(swizzle) << 62;
}

// The descriptor of a place `bytes` further on in the same matrix.
__device__ __forceinline__ uint64_t advance(uint64_t descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

// The same descriptor, which the compiler knows nothing of: places in the matrix are then added up
// where they are used, not kept in registers over a loop.
__device__ __forceinline__ uint64_t opaque(uint64_t descriptor) {
  asm volatile("" : "+l"(descriptor));
  return descriptor;
}

// Before the first wgmma, and whenever threads have touched registers that a wgmma will use.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int pending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// Keeps the compiler from moving uses of an accumulator across a wait.
template <int n>
__device__ __forceinline__ void pin(float (&d)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

#define DSA_D4(d, o) "+f"(d[o + 0]), "+f"(d[o + 1]), "+f"(d[o + 2]), "+f"(d[o + 3])
#define DSA_D8(d, o) DSA_D4(d, o), DSA_D4(d, o + 4)
#define DSA_D16(d, o) DSA_D8(d, o), DSA_D8(d, o + 8)
#define DSA_D32(d, o) DSA_D16(d, o), DSA_D16(d, o + 16)
#define DSA_D64(d, o) DSA_D32(d, o), DSA_D32(d, o + 32)
#define DSA_D128(d, o) DSA_D64(d, o), DSA_D64(d, o + 64)
#define DSA_NAMES4 "%0, %1, %2, %3"
#define DSA_NAMES8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define DSA_NAMES16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define DSA_NAMES32                                                        \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define DSA_NAMES64                                                                  \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define DSA_NAMES128                                                                             \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                       \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "             \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "             \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "             \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

// One wgmma of D registers r and operand numbers behind them: a, b, accumulate (and immediates).
#define DSA_WGMMA(r, shape, types, a, b, p, immediates, ...)                  \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %" p                           \
               ", 0;"                                                         \
               " wgmma.mma_async.sync.aligned." shape types " {" DSA_NAMES##r \
               "}, " a ", %" b ", p, 1, 1" immediates "; }"                   \
               : DSA_D##r(d, 0)                                               \
               : __VA_ARGS__)

// A and B e4m3, both K-major; K = 32.
template <int n>
__device__ __forceinline__ void wgmma_e4m3(float (&d)[n / 2], uint64_t a, uint64_t b,
                                           bool accumulate) {
  const int add = accumulate;
  if constexpr (n == 8)
    DSA_WGMMA(4, "m64n8k32", ".f32.e4m3.e4m3", "%4", "5", "6", "", "l"(a), "l"(b), "r"(add));
  else if constexpr (n == 16)
    DSA_WGMMA(8, "m64n16k32", ".f32.e4m3.e4m3", "%8", "9", "10", "", "l"(a), "l"(b), "r"(add));
  else if constexpr (n == 32)
    DSA_WGMMA(16, "m64n32k32", ".f32.e4m3.e4m3", "%16", "17", "18", "", "l"(a), "l"(b), "r"(add));
  else if constexpr (n == 64)
    DSA_WGMMA(32, "m64n64k32", ".f32.e4m3.e4m3", "%32", "33", "34", "", "l"(a), "l"(b), "r"(add));
  else if constexpr (n == 128)
    DSA_WGMMA(64, "m64n128k32", ".f32.e4m3.e4m3", "%64", "65", "66", "", "l"(a), "l"(b), "r"(add));
  else if constexpr (n == 256)
    DSA_WGMMA(128, "m64n256k32", ".f32.e4m3.e4m3", "%128", "129", "130", "", "l"(a), "l"(b),
              "r"(add));
  else
    static_assert(n == 0, "no wgmma of this N");
}

// A and B bf16 in shared memory; K = 16.
template <int n, Major a_major = Major::kK, Major b_major = Major::kK>
__device__ __forceinline__ void wgmma_bf16(float (&d)[n / 2], uint64_t a, uint64_t b,
                                           bool accumulate) {
  const int add = accumulate;
  if constexpr (n == 8)
    DSA_WGMMA(4, "m64n8k16", ".f32.bf16.bf16", "%4", "5", "6", ", %7, %8", "l"(a), "l"(b), "r"(add),
              "n"(static_cast<int>(a_major)), "n"(static_cast<int>(b_major)));
  else if constexpr (n == 16)
    DSA_WGMMA(8, "m64n16k16", ".f32.bf16.bf16", "%8", "9", "10", ", %11, %12", "l"(a), "l"(b),
              "r"(add), "n"(static_cast<int>(a_major)), "n"(static_cast<int>(b_major)));
  else if constexpr (n == 32)
    DSA_WGMMA(16, "m64n32k16", ".f32.bf16.bf16", "%16", "17", "18", ", %19, %20", "l"(a), "l"(b),
              "r"(add), "n"(static_cast<int>(a_major)), "n"(static_cast<int>(b_major)));
  else if constexpr (n == 64)
    DSA_WGMMA(32, "m64n64k16", ".f32.bf16.bf16", "%32", "33", "34", ", %35, %36", "l"(a), "l"(b),
              "r"(add), "n"(static_cast<int>(a_major)), "n"(static_cast<int>(b_major)));
  else if constexpr (n == 128)
    DSA_WGMMA(64, "m64n128k16", ".f32.bf16.bf16", "%64", "65", "66", ", %67, %68", "l"(a), "l"(b),
              "r"(add), "n"(static_cast<int>(a_major)), "n"(static_cast<int>(b_major)));
  else if constexpr (n == 256)
    DSA_WGMMA(128, "m64n256k16", ".f32.bf16.bf16", "%128", "129", "130", ", %131, %132", "l"(a),
              "l"(b), "r"(add), "n"(static_cast<int>(a_major)), "n"(static_cast<int>(b_major)));
  else
    static_assert(n == 0, "no wgmma of this N");
}

// A bf16 in registers, B bf16 in shared memory; K = 16.
template <int n, Major b_major = Major::kK>
__device__ __forceinline__ void wgmma_bf16(float (&d)[n / 2], const uint32_t (&a)[4], uint64_t b,
                                           bool accumulate) {
  const int add = accumulate;
  if constexpr (n == 8)
    DSA_WGMMA(4, "m64n8k16", ".f32.bf16.bf16", "{%4, %5, %6, %7}", "8", "9", ", %10", "r"(a[0]),
              "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(static_cast<int>(b_major)));
  else if constexpr (n == 16)
    DSA_WGMMA(8, "m64n16k16", ".f32.bf16.bf16", "{%8, %9, %10, %11}", "12", "13", ", %14",
              "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add),
              "n"(static_cast<int>(b_major)));
  else if constexpr (n == 32)
    DSA_WGMMA(16, "m64n32k16", ".f32.bf16.bf16", "{%16, %17, %18, %19}", "20", "21", ", %22",
              "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add),
              "n"(static_cast<int>(b_major)));
  else if constexpr (n == 64)
    DSA_WGMMA(32, "m64n64k16", ".f32.bf16.bf16", "{%32, %33, %34, %35}", "36", "37", ", %38",
              "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add),
              "n"(static_cast<int>(b_major)));
  else if constexpr (n == 128)
    DSA_WGMMA(64, "m64n128k16", ".f32.bf16.bf16", "{%64, %65, %66, %67}", "68", "69", ", %70",
              "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add),
              "n"(static_cast<int>(b_major)));
  else if constexpr (n == 256)
    DSA_WGMMA(128, "m64n256k16", ".f32.bf16.bf16", "{%128, %129, %130, %131}", "132", "133",
              ", %134", "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add),
              "n"(static_cast<int>(b_major)));
  else
    static_assert(n == 0, "no wgmma of this N");
}

#undef DSA_WGMMA
#undef DSA_D4
#undef DSA_NAMES4
#undef DSA_D8
#undef DSA_NAMES8
#undef DSA_D16
#undef DSA_NAMES16
#undef DSA_D32
#undef DSA_NAMES32
#undef DSA_D64
#undef DSA_NAMES64
#undef DSA_D128
#undef DSA_NAMES128

}  // namespace dsa
