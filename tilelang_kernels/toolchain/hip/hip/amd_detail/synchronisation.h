// Barriers. (TileLang emits its waits for copies and its wave barriers itself.)
#pragma once

#include "geometry.h"

// s_barrier alone orders no memory: the fences make writes before it visible after it, and keep
// the compiler from moving accesses across.
__device__ __forceinline__ void __syncthreads() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}
