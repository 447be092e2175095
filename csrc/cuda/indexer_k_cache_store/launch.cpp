#include "../access.h"
#include "../ops.h"
#include "kernel.h"

namespace dsa::cuda {

void indexer_k_cache_store(const IndexerKCacheStoreParams& p, const Target& target) {
  const int64_t num_tokens = p.k.size[0], capacity = p.cache.size[0] * p.cache.size[1];
  const int head_dim = static_cast<int>(p.k.size[1]);
  if (num_tokens == 0 || capacity == 0) return;
  const IndexerKCacheStoreArgs args{
      .k = p.k.data,
      .slots = p.slots.data,
      .norm_weight = p.norm_weight.data,
      .norm_bias = p.norm_bias.data,
      .cache = p.cache.as<uint8_t>(),
      .num_tokens = num_tokens,
      .k_stride = p.k.stride[0],
      .capacity = capacity,
      .page_bytes = p.cache.stride[0],
      .pages = Blocks::of(p.cache.size[1]),
      .wide_slots = p.slots.dtype == DType::kInt64,
      .wide_norm_weight = p.norm_weight.dtype == DType::kFloat32,
      .wide_norm_bias = p.norm_bias.dtype == DType::kFloat32,
      .norm_eps = p.norm_eps,
      .input = indexer_input(p.input),
  };
  const std::string name =
      std::string("indexer_k_cache_store_") + name_of(p.k.dtype) + "_" + std::to_string(head_dim);
  const bool vectors = aligned(p.k, 16) && aligned(p.norm_weight, 16) && aligned(p.norm_bias, 16) &&
                       aligned(p.input.cos_sin, 16) && aligned_pages(p.cache, 8);
  Shape shape;
  shape.grid[0] = ctas_for(num_tokens, kStoreThreads / kLanesPerIndexerRow);
  shape.block = kStoreThreads;
  shape.shared_bytes = rope_shared_bytes(args.input, kStoreThreads, head_dim);
  launch(target, "indexer_k_cache_store.sm80", variant(name, vectors).c_str(), shape, args);
}

}  // namespace dsa::cuda
