// Reading and writing one token's record of a latent cache.
#pragma once

#include <cstring>

#include "../formats.h"
#include "../params.h"
#include "convert.h"
#include "isa/isa.h"
#include "quantize.h"

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
    const int64_t token = slot % cache.size[1];
    const uint8_t* scales =
        record + (cache.size[1] - token) * V4::kDataBytes + token * V4::kScaleBytes;
    for (int g = 0; g < V4::kGroups; ++g) {
      math.dequantize(record + g * V4::kGroupDim, ue8m0_to_float(scales[g]), V4::kGroupDim,
                      out + g * V4::kGroupDim / math.dims_per_word);
    }
    std::memcpy(rope, record + V4::kRopeOffset, sizeof rope);
    math.load_bf16(rope, 0, 1, kRopeDim, out + V4::kNopeDim / math.dims_per_word);
  }
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

// Writes a key at a valid `slot`: its first `nope_dim` dims quantised, its RoPE dims as bf16.
inline void write_record(const Isa& isa, const View<3>& cache, CacheFormat format, int64_t slot,
                         const float* nope, const float* rope, bool ue8m0) {
  const int64_t page = slot / cache.size[1], token = slot % cache.size[1];
  if (format == CacheFormat::kBFloat16) {
    uint16_t* record = cache.as<uint16_t>() + page * cache.stride[0] + token * cache.size[2];
    isa.to_bfloat16(nope, record, cache.size[2] - kRopeDim);
    isa.to_bfloat16(rope, record + cache.size[2] - kRopeDim, kRopeDim);
    return;
  }
  uint8_t* base = cache.as<uint8_t>() + page * cache.stride[0];
  uint16_t rope_bits[kRopeDim];
  isa.to_bfloat16(rope, rope_bits, kRopeDim);
  if (format == CacheFormat::kV32) {
    uint8_t* record = base + token * V32::kRecordBytes;
    float scales[V32::kGroups];
    for (int g = 0; g < V32::kGroups; ++g) {
      quantize_group(nope + g * V32::kGroupDim, V32::kGroupDim, ue8m0, record + g * V32::kGroupDim,
                     &scales[g]);
    }
    std::memcpy(record + V32::kScaleOffset, scales, sizeof scales);
    std::memcpy(record + V32::kRopeOffset, rope_bits, sizeof rope_bits);
  } else {
    uint8_t* data = base + token * V4::kDataBytes;
    uint8_t* exponents = base + cache.size[1] * V4::kDataBytes + token * V4::kScaleBytes;
    for (int g = 0; g < V4::kGroups; ++g) {
      float scale;
      quantize_group(nope + g * V4::kGroupDim, V4::kGroupDim, true, data + g * V4::kGroupDim,
                     &scale);
      exponents[g] = static_cast<uint8_t>(float_bits(scale) >> 23);
    }
    for (int g = V4::kGroups; g < V4::kScaleBytes; ++g) exponents[g] = 0;
    std::memcpy(data + V4::kRopeOffset, rope_bits, sizeof rope_bits);
  }
}

}  // namespace dsa::cpu
