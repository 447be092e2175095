#include "../access.h"
#include "../ops.h"
#include "kernel.h"

namespace dsa::cuda {

void mla_cache_gather(const MlaCacheGatherParams& p, const Target& target) {
  if (p.out.size[0] == 0) return;
  const MlaCacheGatherArgs args{
      .rows = paged_rows(p.block_table, p.cu_seq_lens, p.seq_start, p.out.size[0], p.cache),
      .cache = p.cache.as<const uint8_t>(),
      .page_bytes = p.cache.stride[0] * element_size(p.cache.dtype),
      .out = p.out.data,
      .out_stride = p.out.stride[0],
      .d_qk = static_cast<int32_t>(p.out.size[1]),
  };
  const std::string name =
      std::string("mla_cache_gather_") + name_of(p.format) + "_" + name_of(p.out.dtype);
  const bool vectors = aligned_pages(p.cache, 16) && aligned(p.out, 16);
  Shape shape;
  shape.grid[0] = ctas_for(args.rows.num_rows, kLatentGatherRows * kLatentGatherThreads / 32);
  shape.block = kLatentGatherThreads;
  launch(target, "mla_cache_gather.sm80", variant(name, vectors).c_str(), shape, args);
}

}  // namespace dsa::cuda
