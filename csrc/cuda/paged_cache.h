// A paged cache as kernels see it. Plain data, shared by host and device.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "../params.h"

namespace dsa {

// n / d of any n < 2^31 as a multiplication: multiplier = ceil(2^shift / d), which is exact with 31
// bits more than d needs.
struct Divider {
  uint32_t multiplier, shift;

  static Divider of(uint32_t d) {
    const uint32_t shift = 31 + std::bit_width(d - 1);
    return {static_cast<uint32_t>(((uint64_t{1} << shift) + d - 1) / d), shift};
  }
};

struct PagedCache {
  const uint8_t* data;  // [num_pages | page_size, record], packed within a page
  int64_t page_bytes;   // from page to page
  uint32_t page_size, capacity;
  Divider by_page_size;
};

inline PagedCache paged_cache(const View<3>& cache) {
  const int64_t element = cache.dtype == DType::kBFloat16 ? 2 : 1, limit = INT32_MAX;
  // Slots are int32, so that larger pages are never left and larger caches never filled.
  const auto page_size = static_cast<uint32_t>(std::clamp<int64_t>(cache.size[1], 1, limit));
  const int64_t pages = cache.size[1] > 0 ? cache.size[0] : 0;
  const auto capacity = static_cast<uint32_t>(
      std::min(limit + 1, pages > limit ? limit + 1 : pages * int64_t{page_size}));
  return {cache.as<const uint8_t>(), cache.stride[0] * element, page_size, capacity,
          Divider::of(page_size)};
}

// Whether every page begins at a multiple of `bytes`.
inline bool pages_aligned(const View<3>& cache, int64_t bytes) {
  const int64_t element = cache.dtype == DType::kBFloat16 ? 2 : 1;
  return reinterpret_cast<uintptr_t>(cache.data) % bytes == 0 &&
         (cache.size[0] < 2 || cache.stride[0] * element % bytes == 0);
}

}  // namespace dsa
