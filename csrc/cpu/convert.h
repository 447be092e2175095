// Runs of elements to and from float.
#pragma once

#include <cstring>

#include "../params.h"
#include "isa/isa.h"

namespace dsa::cpu {

// out[0, n) = data[offset, offset + n)
inline void to_float(const Isa& isa, const void* data, DType dtype, int64_t offset, float* out,
                     int64_t n) {
  const void* from = advance(data, dtype, offset);
  switch (dtype) {
    case DType::kFloat32: std::memcpy(out, from, n * sizeof(float)); break;
    case DType::kBFloat16: isa.from_bfloat16(static_cast<const uint16_t*>(from), out, n); break;
    default: isa.from_float8(static_cast<const uint8_t*>(from), out, n); break;
  }
}

// data[offset, offset + n) = in[0, n), rounded to nearest; float32 or bfloat16
inline void from_float(const Isa& isa, const float* in, void* data, DType dtype, int64_t offset,
                       int64_t n) {
  void* to = advance(data, dtype, offset);
  if (dtype == DType::kFloat32) {
    std::memcpy(to, in, n * sizeof(float));
  } else {
    isa.to_bfloat16(in, static_cast<uint16_t*>(to), n);
  }
}

// `count` rows of n elements from data[offset] on, `stride` apart; bfloat16 or float32.
inline void quantize(const Isa& isa, const RowSteps& steps, const void* data, DType dtype,
                     int64_t offset, int64_t stride, int count, int n, const float* const* cos_sin,
                     uint8_t* codes, float* scales) {
  const void* from = advance(data, dtype, offset);
  if (dtype == DType::kBFloat16) {
    isa.quantize_bf16(
        steps, {static_cast<const uint16_t*>(from), stride, count, n, cos_sin, codes, scales});
  } else {
    isa.quantize_fp32(steps,
                      {static_cast<const float*>(from), stride, count, n, cos_sin, codes, scales});
  }
}

// The element at i of an int32 or int64 vector.
inline int64_t integer_at(const View<1>& v, int64_t i) {
  return v.dtype == DType::kInt64 ? v.as<const int64_t>()[i] : v.as<const int32_t>()[i];
}

}  // namespace dsa::cpu
