// Latents and rotated RoPE dims -> records of a paged latent cache.

#include <algorithm>

#include "convert.h"
#include "mla_record.h"
#include "ops.h"
#include "parallel.h"

namespace dsa::cpu {

void mla_cache_store(const MlaCacheStoreParams& p) {
  constexpr int64_t kBlock = 16;
  const Isa& isa = current_isa();
  const int64_t num_tokens = p.kv_c.size[0], nope_dim = p.kv_c.size[1];
  const int64_t capacity = p.cache.size[0] * p.cache.size[1];
  parallel_items((num_tokens + kBlock - 1) / kBlock, [&](int64_t block) {
    float nope[kValueDim], rope[kRopeDim];
    for (int64_t token = block * kBlock; token < std::min((block + 1) * kBlock, num_tokens);
         ++token) {
      const int64_t slot = integer_at(p.slots, token);
      if (slot < 0 || slot >= capacity) continue;
      to_float(isa, p.kv_c.data, p.kv_c.dtype, token * p.kv_c.stride[0], nope, nope_dim);
      to_float(isa, p.k_pe.data, p.k_pe.dtype, token * p.k_pe.stride[0], rope, kRopeDim);
      write_record(isa, p.cache, p.format, slot, nope, rope, p.ue8m0);
    }
  });
}

}  // namespace dsa::cpu
