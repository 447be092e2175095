#include "../access.h"
#include "../ops.h"
#include "kernel.h"

namespace dsa::cuda {

void mla_cache_store(const MlaCacheStoreParams& p, const Target& target) {
  const int64_t num_tokens = p.kv_c.size[0], capacity = p.cache.size[0] * p.cache.size[1];
  if (num_tokens == 0 || capacity == 0) return;
  const MlaCacheStoreArgs args{p.kv_c.data,
                               p.k_pe.data,
                               p.slots.data,
                               p.cache.as<uint8_t>(),
                               num_tokens,
                               p.kv_c.stride[0],
                               p.k_pe.stride[0],
                               capacity,
                               p.cache.stride[0] * element_size(p.cache.dtype),
                               PageSize::of(p.cache.size[1]),
                               static_cast<int32_t>(p.kv_c.size[1]),
                               p.slots.dtype == DType::kInt64,
                               p.ue8m0};
  const char* format = p.format == CacheFormat::kV32  ? "v32"
                       : p.format == CacheFormat::kV4 ? "v4"
                                                      : "bf16";
  const std::string name = std::string("mla_cache_store_") + format +
                           (p.kv_c.dtype == DType::kBFloat16 ? "_bf16" : "_f32");
  const bool vectors = aligned(p.kv_c, 16) && aligned(p.k_pe, 16) && aligned_pages(p.cache, 16);
  Shape shape;
  shape.grid[0] = ctas_for(num_tokens, kLatentThreads / 32);
  shape.block = kLatentThreads;
  launch(target, "mla_cache_store.sm80", variant(name, vectors).c_str(), shape, args);
}

}  // namespace dsa::cuda
