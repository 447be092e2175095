// The indexer's k: LayerNorm, RoPE, Hadamard, FP8 codes, into the pages of the index cache.

#include <algorithm>

#include "index_cache.h"
#include "indexer_input.h"
#include "ops.h"
#include "parallel.h"
#include "stream.h"

namespace dsa::cpu {
namespace {

// LayerNorm's weight or bias as float, every NaN 0x7fc00000.
void load_norm(const Isa& isa, const View<1>& from, int n, float* out) {
  to_float(isa, from.data, from.dtype, 0, out, n);
  for (int i = 0; i < n; ++i) out[i] = out[i] != out[i] ? NAN : out[i];
}

}  // namespace

void indexer_k_cache_store(const IndexerKCacheStoreParams& p) {
  constexpr int64_t kBlock = 128;
  const Isa& isa = current_isa();
  const int64_t num_tokens = p.k.size[0], capacity = p.cache.size[0] * p.cache.size[1];
  const int head_dim = static_cast<int>(p.k.size[1]);
  const bool streams = num_tokens * (head_dim + kIndexScaleBytes) >= kStreamBytes;
  float norm_weight[kMaxIndexDim], norm_bias[kMaxIndexDim];
  RowSteps steps = row_steps(p.input);
  if (p.norm_weight) {
    load_norm(isa, p.norm_weight, head_dim, norm_weight);
    load_norm(isa, p.norm_bias, head_dim, norm_bias);
    steps.norm_weight = norm_weight;
    steps.norm_bias = norm_bias;
    steps.norm_eps = p.norm_eps;
  }
  parallel_items((num_tokens + kBlock - 1) / kBlock, [&](int64_t block) {
    RowSteps row = steps;
    StreamWriter code_plane(isa, streams), scale_plane(isa, streams);
    const int64_t end = std::min((block + 1) * kBlock, num_tokens);
    for (int64_t token = block * kBlock; token < end; ++token) {
      const int64_t slot = integer_at(p.slots, token);
      if (slot < 0 || slot >= capacity) continue;
      void* codes = code_plane.place(index_codes(p.cache, slot), head_dim);
      float scale = NAN;
      if (set_position(p.input, token, &row)) {
        scale = quantize(isa, row, p.k.data, p.k.dtype, token * p.k.stride[0], head_dim,
                         static_cast<uint8_t*>(codes));
      } else {
        std::memset(codes, kFp8Nan, head_dim);
      }
      std::memcpy(scale_plane.place(index_scale(p.cache, slot), sizeof scale), &scale,
                  sizeof scale);
    }
  });
}

}  // namespace dsa::cpu
