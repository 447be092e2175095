// Records of paged latent caches: where they lie, and their parts.
#pragma once

#include <type_traits>

#include "../../formats.h"
#include "../paged_cache.h"
#include "fp8.cuh"

namespace dsa {

// 16 bytes of global memory that the kernel does not write, or zeros where `valid` is false.
template <bool aligned>
__device__ __forceinline__ uint4 load_16(const uint8_t* from, bool valid) {
  uint4 value = make_uint4(0, 0, 0, 0);
  if (valid) {
    if constexpr (aligned) {
      value = __ldg(reinterpret_cast<const uint4*>(from));
    } else {
      uint32_t words[4] = {};
#pragma unroll
      for (int i = 0; i < 16; ++i) words[i / 4] |= uint32_t{__ldg(from + i)} << 8 * (i % 4);
      value = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
  return value;
}

// A page and a place in it.
struct Slot {
  const uint8_t* page;
  uint32_t token;
};

// `slot` is in [0, capacity).
__device__ __forceinline__ Slot find_slot(const PagedCache& cache, uint32_t slot) {
  const auto page =
      static_cast<uint32_t>(uint64_t{slot} * cache.by_page_size.multiplier >>
                            cache.by_page_size.shift);
  return {cache.data + page * cache.page_bytes, slot - page * cache.page_size};
}

// The scales of one record.
template <class Format>
struct Scales;

template <>
struct Scales<V32> {
  uint4 words;

  template <bool aligned>
  __device__ __forceinline__ void load(const uint8_t* record, const uint8_t*, bool valid) {
    words = load_16<aligned>(record + V32::kScaleOffset, valid);
  }

  // Of the 64 dims of `tile`.
  __device__ __forceinline__ float of_tile(int tile) const {
    const uint32_t group[4] = {words.x, words.y, words.z, words.w};
    return __uint_as_float(group[tile / 2]);
  }
};

template <>
struct Scales<V4> {
  uint2 exponents;

  template <bool aligned>
  __device__ __forceinline__ void load(const uint8_t*, const uint8_t* scales, bool valid) {
    exponents = make_uint2(0, 0);
    if (!valid) return;
    if constexpr (aligned) {
      exponents = __ldg(reinterpret_cast<const uint2*>(scales));
    } else {
#pragma unroll
      for (int i = 0; i < V4::kGroups; ++i)
        (i < 4 ? exponents.x : exponents.y) |= uint32_t{__ldg(scales + i)} << 8 * (i % 4);
    }
  }

  __device__ __forceinline__ float of_tile(int tile) const {
    return ue8m0_to_float((tile < 4 ? exponents.x : exponents.y) >> 8 * (tile % 4) & 0xff);
  }
};

// The data of a token, and its scales where pages are planar.
template <class Format>
struct Record {
  const uint8_t *data, *scales;
};

template <class Format>
__device__ __forceinline__ Record<Format> find_record(const PagedCache& cache,
                                                      uint32_t slot) {
  const Slot at = find_slot(cache, slot);
  if constexpr (std::is_same_v<Format, V4>)
    return {at.page + uint64_t{at.token} * V4::kDataBytes,
            at.page + uint64_t{cache.page_size} * V4::kDataBytes +
                uint64_t{at.token} * V4::kScaleBytes};
  else
    return {at.page + uint64_t{at.token} * Format::kRecordBytes, nullptr};
}

}  // namespace dsa
