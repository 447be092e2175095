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
  constexpr int64_t kPiece = StreamWriter::kMaxPiece / kMaxIndexDim;
  const Isa& isa = current_isa();
  const int64_t num_tokens = p.k.size[0], page_size = p.cache.size[1];
  const int64_t capacity = p.cache.size[0] * page_size;
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
  const auto slot_of = [&](int64_t token) {
    const int64_t slot = integer_at(p.slots, token);
    return slot >= 0 && slot < capacity ? slot : -1;
  };
  parallel_runs(num_tokens, [&](int64_t begin, int64_t end) {
    StreamWriter code_plane(isa, streams), scale_plane(isa, streams);
    for (int64_t token = begin, count; token < end; token += count) {
      const int64_t slot = slot_of(token);
      // Tokens whose slots follow each other in a page go together.
      const int64_t most =
          slot < 0 ? 1 : std::min({end - token, kPiece, page_size - slot % page_size});
      for (count = 1; count < most && slot_of(token + count) == slot + count;) ++count;
      if (slot < 0) continue;
      const float* cos_sin[kPiece];
      for (int64_t i = 0; i < count; ++i) cos_sin[i] = rope_row(p.input, token + i);
      void* codes = code_plane.place(index_codes(p.cache, slot), count * head_dim);
      float scales[kPiece];
      quantize(isa, steps, p.k.data, p.k.dtype, token * p.k.stride[0], p.k.stride[0],
               static_cast<int>(count), head_dim, cos_sin, static_cast<uint8_t*>(codes), scales);
      const int64_t bytes = count * kIndexScaleBytes;
      std::memcpy(scale_plane.place(index_scale(p.cache, slot), bytes), scales, bytes);
    }
  });
}

}  // namespace dsa::cpu
