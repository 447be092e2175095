#include "../access.h"
#include "../ops.h"
#include "kernel.h"

namespace dsa::cuda {

void indexer_k_cache_gather(const IndexerKCacheGatherParams& p, const Target& target) {
  const int head_dim = static_cast<int>(p.k_out.size[1]);
  if (p.k_out.size[0] == 0) return;
  const IndexerKCacheGatherArgs args{
      .rows = paged_rows(p.block_table, p.cu_seq_lens, p.seq_start, p.k_out.size[0], p.cache),
      .cache = p.cache.as<const uint8_t>(),
      .page_bytes = p.cache.stride[0],
      .k_out = p.k_out.as<uint8_t>(),
      .k_stride = p.k_out.stride[0],
      .scale_out = p.scale_out.as<float>(),
  };
  const std::string name = "indexer_k_cache_gather_" + std::to_string(head_dim);
  const bool vectors = aligned_pages(p.cache, 16) && aligned(p.k_out, 16);
  Shape shape;
  shape.grid[0] = ctas_for(args.rows.num_rows, gather_rows(head_dim) * kGatherThreads / 32);
  shape.block = kGatherThreads;
  launch(target, "indexer_k_cache_gather.sm80", variant(name, vectors).c_str(), shape, args);
}

}  // namespace dsa::cuda
