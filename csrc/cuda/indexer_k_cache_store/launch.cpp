#include "../access.h"
#include "../ops.h"
#include "kernel.h"

namespace dsa::cuda {

void indexer_k_cache_store(const IndexerKCacheStoreParams& p, const Target& target) {
  const int64_t num_tokens = p.k.size[0], capacity = p.cache.size[0] * p.cache.size[1];
  const int head_dim = static_cast<int>(p.k.size[1]);
  if (num_tokens == 0 || capacity == 0) return;
  const IndexerKCacheStoreArgs args{p.k.data,
                                    p.slots.data,
                                    p.norm_weight.data,
                                    p.norm_bias.data,
                                    p.cache.as<uint8_t>(),
                                    num_tokens,
                                    p.k.stride[0],
                                    capacity,
                                    p.cache.stride[0],
                                    PageSize::of(p.cache.size[1]),
                                    p.slots.dtype == DType::kInt64,
                                    p.norm_weight.dtype == DType::kFloat32,
                                    p.norm_bias.dtype == DType::kFloat32,
                                    p.norm_eps,
                                    indexer_input(p.input)};
  const std::string name = std::string("indexer_k_cache_store_") +
                           (p.k.dtype == DType::kBFloat16 ? "bf16_" : "f32_") +
                           std::to_string(head_dim);
  const bool vectors =
      aligned(p.k, 16) && aligned(p.input.cos_sin, 16) && aligned_pages(p.cache, 8);
  Shape shape;
  shape.grid[0] = ctas_for(num_tokens, kStoreThreads / kLanesPerIndexerRow);
  shape.block = kStoreThreads;
  shape.shared_bytes = rope_shared_bytes(args.input, kStoreThreads, head_dim);
  launch(target, "indexer_k_cache_store.sm80", variant(name, vectors).c_str(), shape, args);
}

}  // namespace dsa::cuda
