// The walk of the gather ops from output rows to places in the cache; mirrors
// dsa_kernels/reference/paging.py.
#pragma once

#include "../paged_rows.h"
#include "vector.cuh"

namespace dsa {

// Where an output row comes from.
struct Source {
  static constexpr int32_t kInvalid = -1;    // the row is zeros
  static constexpr int32_t kUnclaimed = -2;  // the row is nobody's
  int32_t page = kUnclaimed;
  uint32_t token = 0;  // in the page
};

// Of row first + lane, for the first `rows` lanes; all lanes take part. Requests may overlap and
// come in any order, and the last one that claims a row has it: 32 are looked at together, from the
// end.
__device__ __forceinline__ Source find_source(const cuda::PagedRows& p, int32_t first, int rows) {
  const int lane = lane_index();
  int64_t request = -1;
  for (int64_t base = DSA_FAULT == 508 ? 0 : (p.batch - 1) / kWarp * kWarp;
       base >= 0 && p.batch > 0; base -= kWarp) {
    const int64_t mine = base + lane;
    int32_t begin = 0, end = 0;
    if (mine < p.batch) {
      begin = max(__ldg(p.cu_seq_lens + mine), 0);
      end = min(__ldg(p.cu_seq_lens + mine + 1), p.num_rows);
    }
    for (int row = 0; row < rows; ++row) {
      const uint32_t claims = __ballot_sync(0xffffffff, first + row >= begin && first + row < end);
      if (lane == row && request < 0 && claims != 0)
        request = base + (DSA_FAULT == 506 ? __ffs(claims) - 1 : 31 - __clz(claims));
    }
    if (__all_sync(0xffffffff, lane >= rows || request >= 0)) break;
  }
  Source source;
  if (lane >= rows || request < 0) return source;
  source.page = Source::kInvalid;
  const int64_t begin = max(__ldg(p.cu_seq_lens + request), 0);
  const int64_t start = p.seq_start != nullptr ? __ldg(p.seq_start + request) : 0;
  const int64_t position = start + first + lane - begin;
  if (position < 0 || position >= p.capacity) return source;
  const cuda::Place place = p.pages.place_of(position);
  const int32_t page = __ldg(p.block_table + request * p.block_table_stride + place.block);
  if (page < 0 || page >= p.num_pages) return source;
  return {page, place.offset};
}

// Lane `lane`'s.
__device__ __forceinline__ Source source_of(const Source& source, int lane) {
  return {__shfl_sync(0xffffffff, source.page, lane), __shfl_sync(0xffffffff, source.token, lane)};
}

}  // namespace dsa
