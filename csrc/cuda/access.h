// How wide kernels may access tensors, and how many CTAs go over them.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>

#include "../params.h"
#include "launch.h"

namespace dsa::cuda {

// Whether each run along the last dim begins at a multiple of `bytes`.
template <int N>
bool aligned(const View<N>& v, int64_t bytes) {
  bool ok = reinterpret_cast<uintptr_t>(v.data) % bytes == 0;
  for (int i = 0; i < N - 1; ++i)
    ok &= v.size[i] < 2 || v.stride[i] * element_size(v.dtype) % bytes == 0;
  return ok;
}

// Whether each page of a paged cache begins at a multiple of `bytes`.
inline bool aligned_pages(const View<3>& cache, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(cache.data) % bytes == 0 &&
         (cache.size[0] < 2 || cache.stride[0] * element_size(cache.dtype) % bytes == 0);
}

// Tensor cores take no float32 as it is. `takes` and `convert` end the sentences.
inline void refuse_float32(const char* op, DType dtype, const char* takes, const char* convert) {
  if (dtype == DType::kFloat32)
    throw std::runtime_error(std::string(op) + ": the CUDA kernel takes " + takes +
                             "; got float32. Convert " + convert +
                             ", or use backend=\"reference\".");
}

// CTAs for `items`, `per_cta` each, as many as a grid has at most.
inline uint32_t ctas_for(int64_t items, int64_t per_cta) {
  return static_cast<uint32_t>(std::min<int64_t>((items + per_cta - 1) / per_cta, INT32_MAX));
}

// As kernels' names have it.
inline const char* name_of(DType dtype) {
  return dtype == DType::kBFloat16 ? "bf16" : "f32";
}
inline const char* name_of(CacheFormat format) {
  switch (format) {
    case CacheFormat::kV32: return "v32";
    case CacheFormat::kV4: return "v4";
    case CacheFormat::kBFloat16: break;
  }
  return "bf16";
}

// A kernel's name, or that of its variant for any alignment.
inline std::string variant(std::string name, bool aligned) {
  return aligned ? name : name + "_unaligned";
}

}  // namespace dsa::cuda
