// The index cache's planar pages: page_size keys of head_dim codes, then page_size float32 scales.
#pragma once

#include "../formats.h"
#include "../params.h"

namespace dsa::cpu {

// cache: uint8 [num_pages, page_size, head_dim+4], packed within a page; slot: valid.
inline uint8_t* index_codes(const View<3>& cache, int64_t slot) {
  const int64_t page = slot / cache.size[1], token = slot % cache.size[1];
  return cache.as<uint8_t>() + page * cache.stride[0] + token * (cache.size[2] - kIndexScaleBytes);
}

// The bytes of the slot's scale, which nothing aligns.
inline uint8_t* index_scale(const View<3>& cache, int64_t slot) {
  const int64_t page = slot / cache.size[1], token = slot % cache.size[1];
  return cache.as<uint8_t>() + page * cache.stride[0] +
         cache.size[1] * (cache.size[2] - kIndexScaleBytes) + token * kIndexScaleBytes;
}

}  // namespace dsa::cpu
