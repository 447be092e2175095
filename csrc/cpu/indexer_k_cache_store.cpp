// The indexer's k: LayerNorm, RoPE, Hadamard, FP8 codes, into the pages of the index cache.

#include <algorithm>

#include "index_cache.h"
#include "indexer_input.h"
#include "ops.h"
#include "parallel.h"

namespace dsa::cpu {

void indexer_k_cache_store(const IndexerKCacheStoreParams& p) {
  constexpr int64_t kBlock = 64;
  const Isa& isa = current_isa();
  const int64_t num_tokens = p.k.size[0], capacity = p.cache.size[0] * p.cache.size[1];
  const int head_dim = static_cast<int>(p.k.size[1]);
  float norm_weight[kMaxIndexDim], norm_bias[kMaxIndexDim];
  if (p.norm_weight) {
    to_float(isa, p.norm_weight.data, p.norm_weight.dtype, 0, norm_weight, head_dim);
    to_float(isa, p.norm_bias.data, p.norm_bias.dtype, 0, norm_bias, head_dim);
  }
  parallel_items((num_tokens + kBlock - 1) / kBlock, [&](int64_t block) {
    float x[kMaxIndexDim];
    for (int64_t token = block * kBlock; token < std::min((block + 1) * kBlock, num_tokens);
         ++token) {
      const int64_t slot = integer_at(p.slots, token);
      if (slot < 0 || slot >= capacity) continue;
      to_float(isa, p.k.data, p.k.dtype, token * p.k.stride[0], x, head_dim);
      if (p.norm_weight) {
        layer_norm(x, head_dim, norm_weight, norm_bias, p.norm_eps);
        round_row(isa, p.k.dtype, x, head_dim);
      }
      float scale;
      quantize_row(isa, p.input, token, p.k.dtype, x, head_dim, index_codes(p.cache, slot), &scale);
      std::memcpy(index_scale(p.cache, slot), &scale, sizeof scale);
    }
  });
}

}  // namespace dsa::cpu
