// Paged latent cache -> contiguous dequantised keys.

#include <cstring>

#include "convert.h"
#include "gather.h"
#include "mla_record.h"
#include "ops.h"
#include "prefetch.h"

namespace dsa::cpu {

void mla_cache_gather(const MlaCacheGatherParams& p) {
  constexpr int kAhead = 4;  // records
  constexpr int kMaxKeyDim = kValueDim + kRopeDim;
  const Isa& isa = current_isa();
  const int64_t d_qk = p.out.size[1];
  const bool widens = p.out.dtype == DType::kFloat32;
  const PagedRows rows{p.block_table,
                       p.cu_seq_lens,
                       p.seq_start,
                       p.out.size[0],
                       p.cache.size[0],
                       p.cache.size[1],
                       d_qk * element_size(p.out.dtype)};
  const int64_t record_bytes = p.cache.size[2] * element_size(p.cache.dtype);
  for_each_gathered_run(
      isa, rows, [&](StreamWriter& out, int64_t row, int64_t slot, int64_t count) {
        for (int64_t i = 0; i < count; ++i) {
          void* to = advance(p.out.data, p.out.dtype, (row + i) * p.out.stride[0]);
          to = out.place(to, rows.row_bytes);
          uint16_t narrow[kMaxKeyDim];
          uint16_t* key = widens ? narrow : static_cast<uint16_t*>(to);
          if (slot >= 0 && i + kAhead < count) {
            prefetch(record_address(p.cache, p.format, slot + i + kAhead), record_bytes);
          }
          if (slot < 0) {
            std::memset(key, 0, d_qk * sizeof *key);
          } else {
            read_record(isa, p.cache, p.format, slot + i, key);
          }
          if (widens) isa.from_bfloat16(key, static_cast<float*>(to), d_qk);
        }
      });
}

}  // namespace dsa::cpu
