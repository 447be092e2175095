// Position in a request -> physical slot, through the request's row of the block table.
//
// A CTA does a row, four neighbouring indices a thread at a time: 16 bytes of indices, four entries
// of the table, 16 bytes of slots. Counts are summed over warps in shared memory.

#include "../device/vector.cuh"
#include "kernel.h"

namespace dsa {
namespace {

using cuda::IndicesToSlotsArgs;

// A request's pages.
struct Pages {
  const int32_t* table;
  uint32_t capacity;  // 0 where there is no request
};

__device__ __forceinline__ Pages pages_of_row(const IndicesToSlotsArgs& p, int64_t row) {
  const int64_t request =
      p.row_request != nullptr ? __ldg(p.row_request + row) : p.requests.place_of(row).block;
  if (request < 0 || request >= p.batch) return {p.block_table, 0};
  return {p.block_table + request * p.block_table_stride, p.capacity};
}

// Turns indices into slots, -1 where there is none; returns how many there are. Negative numbers
// are large as unsigned ones: of a page, its slots are beyond int32.
template <int n>
__device__ __forceinline__ int translate(const IndicesToSlotsArgs& p, const Pages& pages,
                                         uint32_t (&words)[n]) {
  uint32_t block[n], page[n];
#pragma unroll
  for (int i = 0; i < n; ++i) {
    block[i] = p.pages.divider.quotient(words[i]);
    page[i] = words[i] < pages.capacity ? __ldg(pages.table + block[i]) : ~0u;
  }
  int count = 0;
#pragma unroll
  for (int i = 0; i < n; ++i) {
    const uint32_t offset = words[i] - block[i] * p.pages.size;
    const uint64_t slot = uint64_t{page[i]} * p.pages.size + offset;
    const bool valid = slot <= INT32_MAX || (DSA_FAULT == 501 && page[i] <= INT32_MAX);
    words[i] = valid ? static_cast<uint32_t>(slot) : ~0u;
    count += DSA_FAULT == 502 || words[i] != ~0u;
  }
  return count;
}

template <int vector>
__device__ __forceinline__ int translate_row(const IndicesToSlotsArgs& p, int64_t row) {
  const Pages pages = pages_of_row(p, row);
  const int32_t* indices = p.indices + row * p.indices_stride;
  int32_t* slots = p.slots + row * p.slots_stride;
  int count = 0;
  for (int64_t i = threadIdx.x * vector; i < p.topk; i += blockDim.x * vector) {
    Words<4 * vector> w = load<4 * vector, 4 * vector>(indices + i);
    count += translate(p, pages, w.at);
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
