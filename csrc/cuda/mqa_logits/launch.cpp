#include <string>

#include "../access.h"
#include "../ops.h"
#include "../score_launch.h"
#include "kernel.h"

namespace dsa::cuda {
void mqa_logits(const MqaLogitsParams& p, int min_keys, const Target& target) {
  const int64_t num_rows = p.q.size[0], heads = p.q.size[1], dim = p.q.size[2];
  const int64_t seq_len = p.k.size[0], width = p.out.size[1];
  if (num_rows == 0 || width == 0) return;
  const bool fp8 = p.q.dtype == DType::kFloat8E4M3;
  refuse_float32("mqa_logits", p.q.dtype, "float8_e4m3fn and bfloat16", "q and k");
  check_score_sizes("mqa_logits", {num_rows, seq_len, width});
  const int64_t element = element_size(p.q.dtype);

  MqaLogitsArgs args{};
  args.q = p.q.data;
  args.k = p.k.data;
  args.weights = p.weights.as<float>();
  args.k_scale = p.k_scale.as<float>();
  args.row_start = p.row_start.as<int>();
  args.row_end = p.row_end.as<int>();
  args.out = p.out.data;
  args.q_row_stride = p.q.stride[0];
  args.q_head_stride = p.q.stride[1];
  args.k_stride = p.k.stride[0];
  args.weights_stride = p.weights.stride[0];
  args.out_stride = p.out.stride[0];
  args.num_rows = static_cast<int>(num_rows);
  args.seq_len = static_cast<int>(seq_len);
  args.width = static_cast<int>(width);
  args.min_keys = min_keys;
  args.compressed = p.compressed;
  args.fill = p.fill;
  args.out_bf16 = p.out.dtype == DType::kBFloat16;

  const int64_t head_stride = p.q.stride[1] * element, row_stride = p.q.stride[0] * element;
  const int64_t k_stride = p.k.stride[0] * element;
  const int64_t queries = mqa_logits_queries(static_cast<int>(heads));
  const uint32_t box_width = score_box_width(dim * element, element);
  const MapSwizzle swizzle = score_swizzle(dim * element);
  TensorMap q_map{}, k_map{}, scale_map{};
  args.map_q = can_map(args.q, {head_stride, row_stride});
  args.map_k = seq_len > 0 && can_map(args.k, {k_stride});
  args.map_scale = seq_len > 0 && p.k_scale && can_map(args.k_scale, {16});
  if (args.map_q)
    q_map = tensor_map(target, p.q.dtype, const_cast<void*>(args.q), {dim, heads, num_rows},
                       {head_stride, row_stride},
                       {box_width, static_cast<uint32_t>(heads), static_cast<uint32_t>(queries)},
                       swizzle);
  if (args.map_k)
    k_map = tensor_map(target, p.q.dtype, const_cast<void*>(args.k), {dim, seq_len}, {k_stride},
                       {box_width, kScoreKeys}, swizzle);
  if (args.map_scale)  // one row: its stride is never used
    scale_map = tensor_map(target, DType::kFloat32, const_cast<float*>(args.k_scale), {seq_len, 1},
                           {16}, {kScoreKeys, 1}, MapSwizzle::kNone);

  const int64_t blocks = (num_rows + queries - 1) / queries;
  const Shape shape =
      score_shape(target, blocks * score_tiles(seq_len), num_rows, queries, heads, dim * element);
  const std::string kernel = std::string("mqa_logits_") + (fp8 ? "fp8" : "bf16") + "_h" +
                             std::to_string(heads) + "_d" + std::to_string(dim);
  launch(target, "mqa_logits.sm90", kernel.c_str(), shape, args, q_map, k_map, scale_map);
}

void mqa_logits(const MqaLogitsParams& p, const Target& target) {
  mqa_logits(p, 0, target);
}

}  // namespace dsa::cuda
