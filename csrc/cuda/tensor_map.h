// Descriptors of tensors in global memory for tensor copies.
#pragma once

#include <initializer_list>

#include "../params.h"
#include "launch.h"

namespace dsa::cuda {

struct alignas(128) TensorMap {  // CUtensorMap; device/tma.cuh has the same
  uint64_t opaque[16];
};

enum class MapSwizzle : int32_t { kNone = 0, k32 = 1, k64 = 2, k128 = 3 };

// What a map needs: address and strides that are multiples of 16 bytes, no stride of 0.
bool can_map(const void* base, std::initializer_list<int64_t> stride_bytes);

// dims and box in elements, innermost first; stride_bytes of all dims but the innermost. Elements
// outside read as zero.
TensorMap tensor_map(const Target& target, DType dtype, void* base,
                     std::initializer_list<int64_t> dims,
                     std::initializer_list<int64_t> stride_bytes,
                     std::initializer_list<uint32_t> box, MapSwizzle swizzle);

}  // namespace dsa::cuda
