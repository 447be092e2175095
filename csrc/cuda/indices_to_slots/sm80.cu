// Position in a request -> physical slot, through the request's row of the block table.
//
// A CTA does a row, four neighbouring indices a thread at a time: 16 bytes of indices, four entries
// of the table, 16 bytes of slots. Counts are summed over warps in shared memory.

#include "../device/vector.cuh"
#include "kernel.h"

namespace dsa {
namespace {

using cuda::IndicesToSlotsArgs;

// -1 where the index has no slot. `capacity` is 0 where the row has no request. Negative numbers
// are large as unsigned ones: of a page, its slots are beyond int32.
__device__ __forceinline__ int32_t slot_of(const IndicesToSlotsArgs& p, const int32_t* table,
                                           uint32_t capacity, uint32_t index) {
  if (index >= capacity) return -1;
  const uint32_t logical = p.by_page_size.quotient(index);
  const auto page = static_cast<uint32_t>(__ldg(table + logical));
  const uint64_t slot = uint64_t{page} * p.page_size + (index - logical * p.page_size);
  return slot > INT32_MAX && DSA_FAULT != 501 ? -1 : static_cast<int32_t>(slot);
}

template <int vector>
__device__ __forceinline__ int translate_row(const IndicesToSlotsArgs& p, int64_t row) {
  const int64_t request =
      p.row_request != nullptr ? __ldg(p.row_request + row) : row / p.rows_per_request;
  const bool known = request >= 0 && request < p.batch;
  const int32_t* table = p.block_table + (known ? request * p.block_table_stride : 0);
  const uint32_t capacity = known ? p.capacity : 0;
  const int32_t* indices = p.indices + row * p.indices_stride;
  int32_t* slots = p.slots + row * p.slots_stride;
  int count = 0;
  for (int64_t i = threadIdx.x * vector; i < p.topk; i += blockDim.x * vector) {
    Words<4 * vector> w = load<4 * vector, 4 * vector>(indices + i);
#pragma unroll
    for (uint32_t& word : w.at) {
      const int32_t slot = slot_of(p, table, capacity, word);
      word = static_cast<uint32_t>(slot);
      count += DSA_FAULT == 502 || slot >= 0;
    }
    store<4 * vector>(slots + i, w);
  }
  return count;
}

// Of a thread's counts, over the CTA, in thread 0.
__device__ __forceinline__ int sum_of_cta(int count) {
  __shared__ int counts[cuda::kSlotThreads / kWarp];
  const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  count = __reduce_add_sync(0xffffffff, count);
  __syncthreads();  // the row before has been summed
  if (lane_index() == 0) counts[warp] = count;
  __syncthreads();
  int sum = 0;
  for (int w = 0; w < warps; ++w) sum += counts[w];
  return sum;
}

template <int vector>
__device__ __forceinline__ void indices_to_slots(const IndicesToSlotsArgs& p) {
  for (int64_t row = blockIdx.x; row < p.num_rows; row += gridDim.x) {
    const int sum = sum_of_cta(translate_row<vector>(p, row));
    if (threadIdx.x == 0) p.counts[row] = sum;
  }
}

}  // namespace

#define DSA_KERNEL(name, vector)                                             \
  extern "C" __global__ void __launch_bounds__(cuda::kSlotThreads)           \
      indices_to_slots##name(const __grid_constant__ IndicesToSlotsArgs p) { \
    indices_to_slots<vector>(p);                                             \
  }

DSA_KERNEL(, cuda::kSlotVector)
DSA_KERNEL(_unaligned, 1)

}  // namespace dsa
