#include "../access.h"
#include "../ops.h"
#include "kernel.h"

namespace dsa::cuda {

void mla_cache_store(const MlaCacheStoreParams& p, const Target& target) {
  const int64_t num_tokens = p.kv_c.size[0], capacity = p.cache.size[0] * p.cache.size[1];
  if (num_tokens == 0 || capacity == 0) return;
  const MlaCacheStoreArgs args{
      .kv_c = p.kv_c.data,
      .k_pe = p.k_pe.data,
      .slots = p.slots.data,
      .cache = p.cache.as<uint8_t>(),
      .num_tokens = num_tokens,
      .kv_c_stride = p.kv_c.stride[0],
      .k_pe_stride = p.k_pe.stride[0],
      .capacity = capacity,
      .page_bytes = p.cache.stride[0] * element_size(p.cache.dtype),
      .pages = Blocks::of(p.cache.size[1]),
      .nope_dim = static_cast<int32_t>(p.kv_c.size[1]),
      .wide_slots = p.slots.dtype == DType::kInt64,
      .ue8m0 = p.ue8m0,
  };
  const std::string name =
      std::string("mla_cache_store_") + name_of(p.format) + "_" + name_of(p.kv_c.dtype);
  const bool vectors = aligned(p.kv_c, 16) && aligned(p.k_pe, 16) && aligned_pages(p.cache, 16);
  Shape shape;
  shape.grid[0] = ctas_for(num_tokens, kLatentThreads / 32);
  shape.block = kLatentThreads;
  launch(target, "mla_cache_store.sm80", variant(name, vectors).c_str(), shape, args);
}

}  // namespace dsa::cuda
