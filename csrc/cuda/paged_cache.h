// A paged cache as kernels see it. Plain data, shared by host and device.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../params.h"
#include "divider.h"

namespace dsa {

struct PagedCache {
  const uint8_t* data;  // [num_pages | page_size, record], packed within a page
  int64_t page_bytes;   // from page to page
  uint32_t page_size, capacity;
  cuda::Divider by_page_size;
};

inline PagedCache paged_cache(const View<3>& cache) {
  // Slots are int32: a larger page is never left, a larger cache never filled.
  constexpr int64_t kSlots = int64_t{1} << 31;
  const int64_t page_size = std::clamp<int64_t>(cache.size[1], 1, kSlots);
  const int64_t pages = cache.size[1] > 0 ? std::min(cache.size[0], kSlots) : 0;
  return {cache.as<const uint8_t>(), cache.stride[0] * element_size(cache.dtype),
          static_cast<uint32_t>(page_size),
          static_cast<uint32_t>(std::min(pages * page_size, kSlots)),
          cuda::Divider::of(static_cast<uint32_t>(page_size))};
}

}  // namespace dsa
