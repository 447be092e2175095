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

// The parts of an fp8 record: codes in groups of a scale each, then RoPE dims, unaligned bf16.
struct Fp8Record {
  const uint8_t* codes;
  float scales[V4::kGroups];
  int groups, group_dim;
  const uint8_t* rope;

  int nope_dim() const { return groups * group_dim; }
};

inline Fp8Record fp8_record(const View<3>& cache, CacheFormat format, int64_t slot,
                            const void* address) {
  Fp8Record r;
  r.codes = static_cast<const uint8_t*>(address);
  if (format == CacheFormat::kV32) {
    r.groups = V32::kGroups;
    r.group_dim = V32::kGroupDim;
    r.rope = r.codes + V32::kRopeOffset;
    std::memcpy(r.scales, r.codes + V32::kScaleOffset, V32::kGroups * sizeof *r.scales);
  } else {
    r.groups = V4::kGroups;
    r.group_dim = V4::kGroupDim;
    r.rope = r.codes + V4::kRopeOffset;
    const uint8_t* exponents = v4_scales(cache, r.codes, slot);
    for (int g = 0; g < V4::kGroups; ++g) r.scales[g] = ue8m0_to_float(exponents[g]);
  }
  return r;
}

// The dequantised key of a valid `slot`, whose record is at `address`, as words: d_qk /
// dims_per_word of them.
inline void read_record_words(const Arithmetic& math, const View<3>& cache, CacheFormat format,
                              int64_t slot, const void* address, uint32_t* out) {
  if (format == CacheFormat::kBFloat16) {
    math.load_bf16(static_cast<const uint16_t*>(address), 0, 1, static_cast<int>(cache.size[2]),
                   out);
    return;
  }
  const Fp8Record record = fp8_record(cache, format, slot, address);
  math.dequantize(record.codes, record.scales, record.groups, record.group_dim, out);
  uint16_t rope[kRopeDim];
  std::memcpy(rope, record.rope, sizeof rope);
  math.load_bf16(rope, 0, 1, kRopeDim, out + record.nope_dim() / math.dims_per_word);
}

// The same as bf16, every NaN of them 0x7fc0.
inline void read_record(const Isa& isa, const View<3>& cache, CacheFormat format, int64_t slot,
                        uint16_t* out) {
  const void* address = record_address(cache, format, slot);
  if (format == CacheFormat::kBFloat16) {
    isa.copy_bfloat16(address, out, cache.size[2]);
    return;
  }
  const Fp8Record record = fp8_record(cache, format, slot, address);
  isa.dequantize_bf16(record.codes, record.scales, record.groups, record.group_dim, out);
  isa.copy_bfloat16(record.rope, out + record.nope_dim(), kRopeDim);
}

}  // namespace dsa::cpu
