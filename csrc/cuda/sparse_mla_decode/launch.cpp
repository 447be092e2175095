#include <algorithm>
#include <cfloat>
#include <cmath>
#include <string>

#include "../access.h"
#include "../ops.h"
#include "kernel.h"

namespace dsa::cuda {
namespace {

constexpr int64_t kMaxCluster = 8;  // CTAs of a portable one
constexpr int64_t kMaxSplits = kMaxCluster;
constexpr int64_t kFixedBlocks = 8;  // of a split whose length must not depend on the batch

int64_t blocks_of(const View<3>& indices) {
  return indices ? (indices.size[2] + kDecodeBlock - 1) / kDecodeBlock : 0;
}

// How many CTAs share a row's `blocks`, where there are `rows` (of 64 heads). Modelled: a wave
// takes as long as its blocks and what is done once, which is more where splits are to be merged.
int64_t choose_splits(int64_t rows, int64_t blocks, int64_t num_sms) {
  int64_t best = 1, best_cost = INT64_MAX;
  for (int64_t splits = 1; splits <= std::min(kMaxSplits, blocks); ++splits) {
    const int64_t clusters = std::max<int64_t>(num_sms / splits, 1);
    const int64_t waves = (rows + clusters - 1) / clusters;
    const int64_t cost = waves * ((blocks + splits - 1) / splits + (splits > 1 ? 4 : 2));
    if (cost < best_cost) best = splits, best_cost = cost;
  }
  return best;
}

SparseMlaDecodeScope scope(const View<3>& cache, const View<3>& indices, const View<2>& lengths) {
  SparseMlaDecodeScope s{};
  if (!indices) return s;
  s.cache = paged_cache(cache);
  s.indices = indices.as<const int32_t>();
  std::copy_n(indices.stride, 2, s.indices_stride);
  s.lengths = lengths.as<const int32_t>();
  std::copy_n(lengths.stride, 2, s.lengths_stride);
  s.topk = s.cache.capacity > 0 ? static_cast<int32_t>(indices.size[2]) : 0;
  return s;
}

bool has_aligned_pages(const SparseMlaDecodeParams& p) {
  return aligned_pages(p.cache, 16) && (!p.extra_cache || aligned_pages(p.extra_cache, 16));
}

// The kernel of the fewest heads that hold `num_heads`, or a group of them; of 128 where two groups
// share keys.
std::string kernel_name(const SparseMlaDecodeParams& p, bool paired) {
  std::string name = std::string("sparse_mla_decode_") + name_of(p.format);
  if (p.format == CacheFormat::kBFloat16) name += "_" + std::to_string(p.q.size[3]);
  const int64_t heads = p.q.size[2];
  name += heads <= 16 ? "_h16" : heads <= kDecodeNarrowHeads ? "_h32" : paired ? "_h128" : "_h64";
  return variant(name, has_aligned_pages(p));
}

}  // namespace

void sparse_mla_decode(const SparseMlaDecodeParams& p, const Target& target) {
  refuse_float32("sparse_mla_decode", p.q.dtype, "bfloat16", "q with .bfloat16()");
  const int64_t batch = p.q.size[0], next_n = p.q.size[1], num_heads = p.q.size[2];
  if (batch * next_n * num_heads == 0) return;

  SparseMlaDecodeArgs args{};
  args.q = p.q.data;
  std::copy_n(p.q.stride, 3, args.q_stride);
  args.scopes[0] = scope(p.cache, p.indices, p.topk_length);
  args.scopes[1] = scope(p.extra_cache, p.extra_indices, p.extra_topk_length);
  args.attn_sink = p.attn_sink.as<const float>();
  args.out = p.out.data;
  std::copy_n(p.out.stride, 3, args.out_stride);
  args.lse = p.lse.as<float>();
  std::copy_n(p.lse.stride, 3, args.lse_stride);
  const float scale_log2 = p.sm_scale * 1.44269504088896f;
  args.scale_log2 = std::max(std::abs(scale_log2), FLT_MIN);  // 0 x -inf would be NaN
  args.negative_scale = scale_log2 < 0;
  args.q_aligned = aligned(p.q, 16);
  args.out_aligned = aligned(p.out, 8);
  args.num_heads = static_cast<int32_t>(num_heads);
  args.next_n = static_cast<int32_t>(next_n);
  args.head_groups = static_cast<int32_t>((num_heads + kDecodeHeads - 1) / kDecodeHeads);

  const int64_t blocks = std::max<int64_t>(blocks_of(p.indices) + blocks_of(p.extra_indices), 1);
  const int64_t rows = batch * next_n * args.head_groups;
  int64_t splits, blocks_per_split = 0;
  if (p.batch_invariant) {
    blocks_per_split = std::max(kFixedBlocks, (blocks + kMaxSplits - 1) / kMaxSplits);
    splits = (blocks + blocks_per_split - 1) / blocks_per_split;
  } else {
    splits = choose_splits(rows, blocks, target.num_sms);
  }
  args.splits = static_cast<int32_t>(splits);
  args.blocks_per_split = static_cast<int32_t>(blocks_per_split);
  if (rows * splits > INT32_MAX || blocks > INT32_MAX / kDecodeBlock)
    throw std::runtime_error(
        "sparse_mla_decode: more query tokens or indices than the CUDA kernel counts in 32 bits.");

  // Two groups of heads share keys that are dequantised. Clusters of 6 would leave SMs idle, of
  // which a GPC has 16 or 18.
  const bool paired = args.head_groups == 2 && kMaxCluster % (2 * splits) == 0 &&
                      p.format != CacheFormat::kBFloat16 && has_aligned_pages(p);
  Shape shape;
  shape.grid[0] = static_cast<uint32_t>(rows * splits);
  shape.cluster = static_cast<uint32_t>(paired ? 2 * splits : splits);
  shape.block = kDecodeThreads;
  shape.shared_bytes = decode_shared_bytes(static_cast<int>(p.q.size[3]));
  launch(target, "sparse_mla_decode.sm90", kernel_name(p, paired).c_str(), shape, args);
}

}  // namespace dsa::cuda
