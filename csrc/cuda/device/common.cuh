// What every kernel needs: lanes, named barriers, register budgets, shared memory addresses.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

// A deliberate fault, compiled in by tests alone: each must turn one of them red.
#ifndef DSA_FAULT
#define DSA_FAULT 0
#endif

namespace dsa {

using bf16 = __nv_bfloat16;

constexpr int kWarp = 32, kWarpgroup = 128;

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ int lane_index() {
  return threadIdx.x % kWarp;
}

// The warp's index, known to the compiler as equal in all lanes.
__device__ __forceinline__ int warp_index() {
  return __shfl_sync(0xffffffff, threadIdx.x / kWarp, 0);
}

__device__ __forceinline__ bool elect_one() {
  uint32_t elected;
  asm volatile("{ .reg .pred p; elect.sync _|p, 0xffffffff; selp.b32 %0, 1, 0, p; }"
               : "=r"(elected));
  return elected != 0;
}

template <int registers>
__device__ __forceinline__ void decrease_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

template <int registers>
__device__ __forceinline__ void increase_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

// Barrier 0 is __syncthreads().
__device__ __forceinline__ void named_barrier_sync(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

__device__ __forceinline__ void named_barrier_arrive(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Before the async proxy (tensor copies, wgmma) touches shared memory that threads have written.
__device__ __forceinline__ void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

template <class T>
__host__ __device__ constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

}  // namespace dsa
