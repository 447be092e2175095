// Reading one token's record of a latent cache.
#pragma once

#include <cstring>

#include "../formats.h"
#include "../params.h"
#include "convert.h"
#include "isa/isa.h"

namespace dsa::cpu {

// 2^(e - 127) as a float; e = 0 is the subnormal 2^-127, e = 255 is NaN, as in e8m0.
inline float ue8m0_to_float(uint8_t e) {
  const uint32_t bits = e == 0 ? 0x00400000u : e == 255 ? 0x7fc00000u : uint32_t{e} << 23;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// Where the record of a valid `slot` begins; of v4, its data.
inline const void* record_address(const View<3>& cache, CacheFormat format, int64_t slot) {
  const int64_t page = slot / cache.size[1], token = slot % cache.size[1];
  const int64_t record = format == CacheFormat::kV4 ? V4::kDataBytes : cache.size[2];
  return advance(cache.data, cache.dtype, page * cache.stride[0] + token * record);
}

// The ue8m0 scales of the v4 record whose data begins at `record`.
inline uint8_t* v4_scales(const View<3>& cache, const void* record, int64_t slot) {
  const int64_t token = slot % cache.size[1];
  uint8_t* data = static_cast<uint8_t*>(const_cast<void*>(record));
  return data + (cache.size[1] - token) * V4::kDataBytes + token * V4::kScaleBytes;
}

// The dequantised key of a valid `slot` as words, d_qk / dims_per_word of them.
inline void read_record_words(const Arithmetic& math, const View<3>& cache, CacheFormat format,
                              int64_t slot, uint32_t* out) {
  const void* address = record_address(cache, format, slot);
  if (format == CacheFormat::kBFloat16) {
    math.load_bf16(static_cast<const uint16_t*>(address), 0, 1, static_cast<int>(cache.size[2]),
                   out);
    return;
  }
  const uint8_t* record = static_cast<const uint8_t*>(address);
  uint16_t rope[kRopeDim];  // nothing aligns it in the record
  if (format == CacheFormat::kV32) {
    float scales[V32::kGroups];
    std::memcpy(scales, record + V32::kScaleOffset, sizeof scales);
    for (int g = 0; g < V32::kGroups; ++g) {
      math.dequantize(record + g * V32::kGroupDim, scales[g], V32::kGroupDim,
                      out + g * V32::kGroupDim / math.dims_per_word);
    }
    std::memcpy(rope, record + V32::kRopeOffset, sizeof rope);
    math.load_bf16(rope, 0, 1, kRopeDim, out + V32::kNopeDim / math.dims_per_word);
  } else {
    const uint8_t* scales = v4_scales(cache, record, slot);
    for (int g = 0; g < V4::kGroups; ++g) {
      math.dequantize(record + g * V4::kGroupDim, ue8m0_to_float(scales[g]), V4::kGroupDim,
                      out + g * V4::kGroupDim / math.dims_per_word);
    }
    std::memcpy(rope, record + V4::kRopeOffset, sizeof rope);
    math.load_bf16(rope, 0, 1, kRopeDim, out + V4::kNopeDim / math.dims_per_word);
  }
}

// The record of a valid `slot` as bf16 key, d_qk elements, every NaN of them 0x7fc0.
inline void read_record(const Isa& isa, const View<3>& cache, CacheFormat format, int64_t slot,
                        uint16_t* out) {
  const void* address = record_address(cache, format, slot);
  if (format == CacheFormat::kBFloat16) {
    isa.copy_bfloat16(static_cast<const uint16_t*>(address), out, cache.size[2]);
    return;
  }
  const uint8_t* record = static_cast<const uint8_t*>(address);
  uint16_t rope[kRopeDim];  // nothing aligns it in the record
  if (format == CacheFormat::kV32) {
    float scales[V32::kGroups];
    std::memcpy(scales, record + V32::kScaleOffset, sizeof scales);
    for (int g = 0; g < V32::kGroups; ++g) {
      isa.dequantize_bf16(record + g * V32::kGroupDim, scales[g], out + g * V32::kGroupDim,
                          V32::kGroupDim);
    }
    std::memcpy(rope, record + V32::kRopeOffset, sizeof rope);
    isa.copy_bfloat16(rope, out + V32::kNopeDim, kRopeDim);
  } else {
    const uint8_t* scales = v4_scales(cache, record, slot);
    for (int g = 0; g < V4::kGroups; ++g) {
      isa.dequantize_bf16(record + g * V4::kGroupDim, ue8m0_to_float(scales[g]),
                          out + g * V4::kGroupDim, V4::kGroupDim);
    }
    std::memcpy(rope, record + V4::kRopeOffset, sizeof rope);
    isa.copy_bfloat16(rope, out + V4::kNopeDim, kRopeDim);
  }
}

}  // namespace dsa::cpu
