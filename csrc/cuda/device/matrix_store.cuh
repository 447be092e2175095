// stmatrix and ldmatrix: 8 x 8 matrices of bf16 between the registers of a warp and shared memory.
#pragma once

#include "common.cuh"

namespace dsa {

// Lanes 8 i to 8 i + 7 name the rows, of 16 bytes, that matrix i goes to.
__device__ __forceinline__ void store_matrices(void* row, const uint32_t (&matrices)[4]) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)),
      "r"(matrices[0]), "r"(matrices[1]), "r"(matrices[2]), "r"(matrices[3])
      : "memory");
}

// The same, each matrix transposed: the lanes name its columns.
__device__ __forceinline__ void store_matrices_transposed(void* column,
                                                          const uint32_t (&matrices)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                   shared_address(column)),
               "r"(matrices[0]), "r"(matrices[1]), "r"(matrices[2]), "r"(matrices[3])
               : "memory");
}

// From the rows that store_matrices would store to.
__device__ __forceinline__ void load_matrices(uint32_t (&matrices)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(shared_address(row))
               : "memory");
}

}  // namespace dsa
