// Reading one token's record of a latent cache.
#pragma once

#include <cstring>

#include "../formats.h"
#include "../params.h"
#include "isa/isa.h"

namespace dsa::cpu {

// 2^(e - 127) as a float; e = 0 is the subnormal 2^-127, e = 255 is NaN, as in e8m0.
inline float ue8m0_to_float(uint8_t e) {
  const uint32_t bits = e == 0 ? 0x00400000u : e == 255 ? 0x7fc00000u : uint32_t{e} << 23;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// The dequantised key of a valid `slot`, d_qk floats, each a bf16 value.
// cache: [num_pages, page_size, record]; strides of dims 1 and 2 are packed.
inline void read_record(const Isa& isa, const View<3>& cache, CacheFormat format, int64_t slot,
                        float* out) {
  const int64_t page = slot / cache.size[1], token = slot % cache.size[1];
  if (format == CacheFormat::kBFloat16) {
    const uint16_t* record =
        cache.as<const uint16_t>() + page * cache.stride[0] + token * cache.size[2];
    isa.from_bfloat16(record, out, cache.size[2]);
    return;
  }
  const uint8_t* base = cache.as<const uint8_t>() + page * cache.stride[0];
  uint16_t rope[kRopeDim];
  if (format == CacheFormat::kV32) {
    const uint8_t* record = base + token * V32::kRecordBytes;
    float scales[V32::kGroups];
    std::memcpy(scales, record + V32::kScaleOffset, sizeof scales);
    for (int g = 0; g < V32::kGroups; ++g) {
      isa.dequantize(record + g * V32::kGroupDim, scales[g], out + g * V32::kGroupDim,
                     V32::kGroupDim);
    }
    std::memcpy(rope, record + V32::kRopeOffset, sizeof rope);
    isa.from_bfloat16(rope, out + V32::kNopeDim, kRopeDim);
  } else {
    const uint8_t* data = base + token * V4::kDataBytes;
    const uint8_t* scales = base + cache.size[1] * V4::kDataBytes + token * V4::kScaleBytes;
    for (int g = 0; g < V4::kGroups; ++g) {
      isa.dequantize(data + g * V4::kGroupDim, ue8m0_to_float(scales[g]), out + g * V4::kGroupDim,
                     V4::kGroupDim);
    }
    std::memcpy(rope, data + V4::kRopeOffset, sizeof rope);
    isa.from_bfloat16(rope, out + V4::kNopeDim, kRopeDim);
  }
}

}  // namespace dsa::cpu
