// Paged latent cache -> contiguous dequantised keys.

#include <algorithm>

#include "convert.h"
#include "gather.h"
#include "mla_record.h"
#include "ops.h"

namespace dsa::cpu {

void mla_cache_gather(const MlaCacheGatherParams& p) {
  constexpr int kMaxKeyDim = kValueDim + kRopeDim;
  const Isa& isa = current_isa();
  const PagedRows rows{p.block_table, p.cu_seq_lens,   p.seq_start,
                       p.out.size[0], p.cache.size[0], p.cache.size[1]};
  for_each_gathered_row(rows, [&](int64_t row, int64_t slot) {
    float key[kMaxKeyDim];
    const int64_t d_qk = p.out.size[1];
    if (slot < 0) {
      std::fill(key, key + d_qk, 0.0f);
    } else {
      read_record(isa, p.cache, p.format, slot, key);
    }
    from_float(isa, key, p.out.data, p.out.dtype, row * p.out.stride[0], d_qk);
  });
}

}  // namespace dsa::cpu
