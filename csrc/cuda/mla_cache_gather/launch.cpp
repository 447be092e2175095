#include "../access.h"
#include "../ops.h"
#include "kernel.h"

namespace dsa::cuda {

void mla_cache_gather(const MlaCacheGatherParams& p, const Target& target) {
  if (p.out.size[0] == 0) return;
  const MlaCacheGatherArgs args{
      paged_rows(p.block_table, p.cu_seq_lens, p.seq_start, p.out.size[0], p.cache),
      p.cache.as<const uint8_t>(),
      p.cache.stride[0] * element_size(p.cache.dtype),
      p.out.data,
      p.out.stride[0],
      static_cast<int32_t>(p.out.size[1])};
  const char* format = p.format == CacheFormat::kV32  ? "v32"
                       : p.format == CacheFormat::kV4 ? "v4"
                                                      : "bf16";
  const std::string name = std::string("mla_cache_gather_") + format +
                           (p.out.dtype == DType::kBFloat16 ? "_bf16" : "_f32");
  const bool vectors = aligned_pages(p.cache, 16) && aligned(p.out, 16);
  Shape shape;
  shape.grid[0] = ctas_for(args.rows.num_rows, kLatentGatherRows * kLatentGatherThreads / 32);
  shape.block = kLatentGatherThreads;
  launch(target, "mla_cache_gather.sm80", variant(name, vectors).c_str(), shape, args);
}

}  // namespace dsa::cuda
