#pragma once

#include "simt_api/types.h"

struct index_t {
  uint32_t x, y, z;
};
extern const index_t &threadIdx, &blockIdx;

void asc_syncthreads();
template <typename T>
T asc_shfl_xor(T, int);
template <typename T>
T asc_reduce_add(T);
template <typename T>
T asc_reduce_max(T);
template <typename T>
T asc_reduce_min(T);
