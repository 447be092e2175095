// Unwraps latent caches.
#pragma once

#include <string>

#include "common.h"

namespace dsa {

// `cache` as a cache of `format` whose keys have d_qk dims; raises where it is not one.
inline View<3> mla_cache_view(Call& op, const char* name, const Tensor& cache,
                              const std::string& format, int64_t d_qk, CacheFormat* out,
                              Access access = Access::kRead) {
  const bool v32 = format == "v32" && d_qk == V32::kNopeDim + kRopeDim;
  const bool v4 = format == "v4" && d_qk == V4::kNopeDim + kRopeDim;
  const bool bf16 = format == "bf16" && (d_qk == 576 || d_qk == 512);
  STD_TORCH_CHECK(v32 || v4 || bf16, op, ": no cache_format '", format, "' with d_qk = ", d_qk,
                  ".");
  *out = v32 ? CacheFormat::kV32 : v4 ? CacheFormat::kV4 : CacheFormat::kBFloat16;
  const int64_t record = v32 ? V32::kRecordBytes : v4 ? V4::kRecordBytes : d_qk;
  return op.unwrap<3>(name, cache, {{bf16 ? DType::kBFloat16 : DType::kUInt8}, {-1, -1, record}, 1},
                      access);
}

}  // namespace dsa
