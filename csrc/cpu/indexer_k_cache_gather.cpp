// Pages of the index cache -> contiguous codes and scales.

#include <cstring>

#include "gather.h"
#include "index_cache.h"
#include "ops.h"

namespace dsa::cpu {

void indexer_k_cache_gather(const IndexerKCacheGatherParams& p) {
  const int64_t head_dim = p.k_out.size[1], stride = p.k_out.stride[0];
  const PagedRows rows{p.block_table,   p.cu_seq_lens,   p.seq_start, p.k_out.size[0],
                       p.cache.size[0], p.cache.size[1], head_dim};
  for_each_gathered_run(
      current_isa(), rows, [&](StreamWriter& out, int64_t row, int64_t slot, int64_t count) {
        uint8_t* codes = p.k_out.as<uint8_t>() + row * stride;
        float* scales = p.scale_out.as<float>() + row;
        // Keys of a page are packed; output rows are, mostly.
        const int64_t per_piece = stride == head_dim ? count : 1;
        const int64_t piece_bytes = per_piece * head_dim;
        for (int64_t i = 0; i < count; i += per_piece) {
          if (slot < 0) {
            std::memset(codes + i * stride, 0, piece_bytes);
          } else {
            out.copy(index_codes(p.cache, slot) + i * head_dim, codes + i * stride, piece_bytes);
          }
        }
        if (slot < 0) {
          std::memset(scales, 0, count * sizeof *scales);
        } else {
          std::memcpy(scales, index_scale(p.cache, slot), count * sizeof *scales);
        }
      });
}

}  // namespace dsa::cpu
