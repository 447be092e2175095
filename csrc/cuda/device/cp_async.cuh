// cp.async: each thread copies 16 bytes to shared memory, or zeroes them.
#pragma once

#include "common.cuh"

namespace dsa {

// `valid` false writes zeros and reads nothing.
__device__ __forceinline__ void cp_async_16(void* to, const void* from, bool valid = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}

// The barrier gets this thread's arrival when its copies so far have landed; the arrival counts as
// one of those that the barrier was initialised with.
__device__ __forceinline__ void cp_async_mbarrier_arrive(uint64_t& barrier) {
  asm volatile(
      "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(&barrier))
      : "memory");
}

__device__ __forceinline__ void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int pending>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

}  // namespace dsa
