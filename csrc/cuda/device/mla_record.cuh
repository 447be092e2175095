// Records of paged latent caches: where they lie, and their parts.
#pragma once

#include <type_traits>

#include "../../formats.h"
#include "../paged_cache.h"
#include "fp8.cuh"

namespace dsa {

// Stands for the record of a key that is not there: all its values and scales are 0.
constexpr int kLongestRecord = 576 * 2;
__device__ const uint4 no_record[kLongestRecord / 16] = {};

// 16 bytes of global memory that the kernel does not write. Unaligned ones take few registers, not
// few cycles, unless they begin at a multiple of 8 bytes, as records do. `unroll` is of the loop
// over their words: which one does without spills differs by kernel.
template <bool aligned, int unroll = 1>
__device__ __forceinline__ uint4 load_16(const uint8_t* from) {
  if constexpr (aligned) return __ldg(reinterpret_cast<const uint4*>(from));
  if (reinterpret_cast<uintptr_t>(from) % 8 == 0) {
    const uint2 low = __ldg(reinterpret_cast<const uint2*>(from));
    const uint2 high = __ldg(reinterpret_cast<const uint2*>(from) + 1);
    return make_uint4(low.x, low.y, high.x, high.y);
  }
  uint4 value;
#pragma unroll(unroll)
  for (int i = 0; i < 16; i += 4) {
    uint32_t word = 0;
#pragma unroll
    for (int b = 0; b < 4; ++b) word |= uint32_t{__ldg(from + i + b)} << 8 * b;
    value = make_uint4(value.y, value.z, value.w, word);
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
  const uint32_t page = cache.by_page_size.quotient(slot);
  return {cache.data + page * cache.page_bytes, slot - page * cache.page_size};
}

// The scales of one record.
template <class Format>
struct Scales;

template <>
struct Scales<V32> {
  uint4 words;

  template <bool aligned>
  __device__ __forceinline__ void load(const uint8_t* record, const uint8_t*) {
    words = load_16<aligned>(record + V32::kScaleOffset);
  }

  // Whether bf16 holds all of them.
  __device__ __forceinline__ bool are_bf16() const {
    return ((words.x | words.y | words.z | words.w) & 0xffff) == 0;
  }

  // Of the 64 dims of `tile`.
  __device__ __forceinline__ float of_tile(int tile) const {
    const uint32_t group[4] = {words.x, words.y, words.z, words.w};
    return __uint_as_float(group[DSA_FAULT == 401 ? tile % 4 : tile / 2]);
  }
};

template <>
struct Scales<V4> {
  uint2 exponents;

  template <bool aligned>
  __device__ __forceinline__ void load(const uint8_t*, const uint8_t* scales) {
    if constexpr (aligned) {
      exponents = __ldg(reinterpret_cast<const uint2*>(scales));
    } else {
      exponents = make_uint2(0, 0);
#pragma unroll
      for (int i = 0; i < V4::kGroups; ++i)
        (i < 4 ? exponents.x : exponents.y) |= uint32_t{__ldg(scales + i)} << 8 * (i % 4);
    }
  }

  __device__ static constexpr bool are_bf16() { return true; }

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
__device__ __forceinline__ Record<Format> find_record(const PagedCache& cache, uint32_t slot,
                                                      bool valid) {
  const Slot at = find_slot(cache, slot);
  const auto* none = reinterpret_cast<const uint8_t*>(no_record);
  if (!valid) return {none, none};
  if constexpr (std::is_same_v<Format, V4>)
    return {at.page + uint64_t{at.token} * V4::kDataBytes,
            at.page + uint64_t{cache.page_size} * V4::kDataBytes +
                uint64_t{at.token} * V4::kScaleBytes};
  else
    return {at.page + uint64_t{at.token} * Format::kRecordBytes, nullptr};
}

}  // namespace dsa
