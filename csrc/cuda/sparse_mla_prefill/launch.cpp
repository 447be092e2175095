#include <algorithm>
#include <cfloat>
#include <cmath>
#include <stdexcept>
#include <string>

#include "../access.h"
#include "../ops.h"
#include "kernel.h"

namespace dsa::cuda {
namespace {

std::string kernel_name(const SparseMlaPrefillParams& p) {
  const std::string name = std::string("sparse_mla_prefill_") + name_of(p.format);
  return p.format == CacheFormat::kBFloat16 ? name + "_" + std::to_string(p.q.size[2]) : name;
}

void set_scale(SparseMlaPrefillArgs& args, float sm_scale) {
  args.negate_q = sm_scale < 0;
  args.sm_scale = std::abs(sm_scale);
  // With 0, scores of -inf would become NaN.
  args.scale_log2 = std::max(static_cast<float>(args.sm_scale * std::log2(std::exp(1.0))), FLT_MIN);
  const double natural = double{args.sm_scale} / args.scale_log2;
  args.natural[0] = static_cast<float>(natural);
  args.natural[1] = static_cast<float>(natural - args.natural[0]);
}

}  // namespace

void sparse_mla_prefill(const SparseMlaPrefillParams& p, const Target& target) {
  refuse_float32("sparse_mla_prefill", p.q.dtype, "bfloat16", "q and kv with .bfloat16()");
  const int64_t num_queries = p.q.size[0], num_heads = p.q.size[1];
  const int64_t head_groups = (num_heads + kPrefillHeads - 1) / kPrefillHeads;
  if (num_queries * num_heads == 0) return;
  if (num_queries * head_groups > INT32_MAX || p.indices.size[1] > INT32_MAX - kPrefillBlock)
    throw std::runtime_error("sparse_mla_prefill: more queries or indices than a launch can have.");

  SparseMlaPrefillArgs args{};
  args.q = p.q.data;
  std::copy_n(p.q.stride, 2, args.q_stride);
  if (p.kv) {
    args.kv = p.kv.data;
    args.kv_stride = p.kv.stride[0];
    args.num_kv = p.kv.size[0];
  } else {
    args.cache = paged_cache(p.cache);
  }
  args.indices = p.indices.as<const int32_t>();
  args.indices_stride = p.indices.stride[0];
  args.kv_start = p.kv_start.as<const int32_t>();
  args.topk_length = p.topk_length.as<const int32_t>();
  args.attn_sink = p.attn_sink.as<const float>();
  args.out = p.out.data;
  std::copy_n(p.out.stride, 2, args.out_stride);
  args.max_logits = p.max_logits.as<float>();
  args.max_logits_stride = p.max_logits.stride[0];
  args.lse = p.lse.as<float>();
  args.lse_stride = p.lse.stride[0];
  set_scale(args, p.sm_scale);
  args.q_aligned = aligned(p.q, 16);
  args.keys_aligned = p.kv ? aligned(p.kv, 16) && uint64_t(args.kv_stride) * 2 <= UINT32_MAX
                           : aligned_pages(p.cache, 16);
  args.out_aligned = aligned(p.out, 16);
  args.num_heads = static_cast<int32_t>(num_heads);
  args.head_groups = static_cast<int32_t>(head_groups);
  args.topk = static_cast<int32_t>(p.indices.size[1]);

  Shape shape;
  shape.grid[0] = static_cast<uint32_t>(num_queries * head_groups);
  shape.block = kPrefillThreads;
  shape.shared_bytes = kPrefillSharedBytes;
  launch(target, "sparse_mla_prefill.sm90", kernel_name(p).c_str(), shape, args);
}

}  // namespace dsa::cuda
