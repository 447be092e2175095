#include "tensor_map.h"

#include <algorithm>

namespace dsa::cuda {
namespace {

int32_t map_data_type(DType dtype) {
  switch (dtype) {
    case DType::kInt32: return 4;
    case DType::kFloat32: return 7;
    case DType::kBFloat16: return 9;
    default: return 0;  // bytes
  }
}

}  // namespace

bool can_map(const void* base, std::initializer_list<int64_t> stride_bytes) {
  if (reinterpret_cast<uintptr_t>(base) % 16) return false;
  return std::all_of(stride_bytes.begin(), stride_bytes.end(),
                     [](int64_t s) { return s > 0 && s % 16 == 0 && s < int64_t{1} << 40; });
}

TensorMap tensor_map(const Target& target, DType dtype, void* base,
                     std::initializer_list<int64_t> dims,
                     std::initializer_list<int64_t> stride_bytes,
                     std::initializer_list<uint32_t> box, MapSwizzle swizzle) {
  constexpr int32_t kL2Promotion256 = 3;
  constexpr uint32_t kOnes[5] = {1, 1, 1, 1, 1};
  uint64_t sizes[5], strides[5];
  std::copy(dims.begin(), dims.end(), sizes);
  std::copy(stride_bytes.begin(), stride_bytes.end(), strides);
  // Not the object that is returned: gcc 12 does not align that one's place.
  TensorMap encoded;
  check(target,
        target.driver.cuTensorMapEncodeTiled(
            &encoded, map_data_type(dtype), static_cast<uint32_t>(dims.size()), base, sizes,
            strides, box.begin(), kOnes, 0, static_cast<int32_t>(swizzle), kL2Promotion256, 0),
        "tensor map");
  TensorMap map = encoded;
  return map;
}

}  // namespace dsa::cuda
