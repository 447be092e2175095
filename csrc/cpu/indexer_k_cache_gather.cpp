// Pages of the index cache -> contiguous codes and scales.

#include <cstring>

#include "gather.h"
#include "index_cache.h"
#include "ops.h"

namespace dsa::cpu {

void indexer_k_cache_gather(const IndexerKCacheGatherParams& p) {
  const int64_t head_dim = p.k_out.size[1];
  const PagedRows rows{p.block_table,   p.cu_seq_lens,   p.seq_start,
                       p.k_out.size[0], p.cache.size[0], p.cache.size[1]};
  for_each_gathered_row(rows, [&](int64_t row, int64_t slot) {
    uint8_t* codes = p.k_out.as<uint8_t>() + row * p.k_out.stride[0];
    float* scale = p.scale_out.as<float>() + row;
    if (slot < 0) {
      std::memset(codes, 0, head_dim);
      *scale = 0.0f;
    } else {
      std::memcpy(codes, index_codes(p.cache, slot), head_dim);
      std::memcpy(scale, index_scale(p.cache, slot), sizeof *scale);
    }
  });
}

}  // namespace dsa::cpu
