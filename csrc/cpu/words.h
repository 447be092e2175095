// Rows of tensors as the words that an Arithmetic multiplies (isa/isa.h).
#pragma once

#include <cstring>

#include "../params.h"
#include "convert.h"
#include "isa/isa.h"

namespace dsa::cpu {

// bf16 products where the level has them and the inputs are no wider; else fp32.
inline const Arithmetic& arithmetic_for(const Isa& isa, DType inputs, int dims) {
  return isa.bf16 != nullptr && inputs != DType::kFloat32 && dims % 2 == 0 ? *isa.bf16 : isa.fp32;
}

// rows x n elements of `dtype`, rows `stride` apart, to packed rows of words.
inline void load_words(const Arithmetic& math, const void* data, DType dtype, int64_t stride,
                       int rows, int n, uint32_t* out) {
  switch (dtype) {
    case DType::kFloat32:
      for (int r = 0; r < rows; ++r) {
        std::memcpy(out + int64_t{r} * n, static_cast<const float*>(data) + r * stride,
                    n * sizeof(float));
      }
      break;
    case DType::kBFloat16:
      math.load_bf16(static_cast<const uint16_t*>(data), stride, rows, n, out);
      break;
    default: math.load_fp8(static_cast<const uint8_t*>(data), stride, rows, n, out); break;
  }
}

// [rows, words] -> [words / kGroup, lanes, kGroup], lanes past the last row zero: what score
// (kGroup 1) and dots (2) take as q. A cache line of each row at a time.
template <int kGroup>
void transpose_words(const uint32_t* in, int rows, int words, int lanes, uint32_t* out) {
  constexpr int kLine = 16;
  for (int begin = 0; begin < words; begin += kLine, out += int64_t{kLine} * lanes) {
    const int n = words - begin < kLine ? words - begin : kLine;
    for (int r = 0; r < lanes; ++r) {
      const uint32_t* row = in + int64_t{r} * words + begin;
      for (int x = 0; x < n; ++x) {
        const int64_t at = (int64_t{x / kGroup} * lanes + r) * kGroup + x % kGroup;
        out[at] = r < rows ? row[x] : 0;
      }
    }
  }
}

}  // namespace dsa::cpu
