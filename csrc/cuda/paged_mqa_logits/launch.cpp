#include <algorithm>
#include <string>

#include "../ops.h"
#include "../score_launch.h"
#include "kernel.h"

namespace dsa::cuda {

void paged_mqa_logits(const PagedMqaLogitsParams& p, int min_keys, const Target& target) {
  const int64_t batch = p.q.size[0], next_n = p.q.size[1], heads = p.q.size[2], dim = p.q.size[3];
  const int64_t num_pages = p.cache.size[0], page_size = p.cache.size[1];
  const int64_t max_pages = p.block_table.size[1], width = p.out.size[1];
  if (batch * next_n == 0 || width == 0) return;
  check_score_sizes("paged_mqa_logits", {batch * next_n, num_pages, page_size, max_pages, width});

  PagedMqaLogitsArgs args{};
  args.q = p.q.data;
  args.cache = p.cache.as<uint8_t>();
  args.weights = p.weights.as<float>();
  args.seq_lens = p.seq_lens.as<int>();
  args.block_table = p.block_table.as<int>();
  args.out = p.out.data;
  args.q_batch_stride = p.q.stride[0];
  args.q_token_stride = p.q.stride[1];
  args.q_head_stride = p.q.stride[2];
  args.page_stride = p.cache.stride[0];
  args.weights_stride = p.weights.stride[0];
  args.lens_batch_stride = p.seq_lens.stride[0];
  args.lens_token_stride = p.seq_lens.stride[1];
  args.table_stride = p.block_table.stride[0];
  args.out_stride = p.out.stride[0];
  args.addressable = std::min<int64_t>(num_pages > 0 ? page_size * max_pages : 0, INT32_MAX);
  args.batch = static_cast<int>(batch);
  args.next_n = static_cast<int>(next_n);
  args.num_pages = static_cast<int>(num_pages);
  args.page_size = static_cast<int>(page_size);
  args.max_pages = static_cast<int>(max_pages);
  args.max_seq_len = static_cast<int>(width);
  args.min_keys = min_keys;
  args.fill = p.fill;
  args.out_bf16 = p.out.dtype == DType::kBFloat16;

  const int queries = next_n == 1 ? 1 : next_n == 2 ? 2 : 4;
  const int64_t blocks_of_request = (next_n + queries - 1) / queries;
  args.by_page_size = Divider::of(static_cast<uint32_t>(std::max<int64_t>(page_size, 1)));
  args.by_blocks = Divider::of(static_cast<uint32_t>(blocks_of_request));
  const MapSwizzle swizzle = score_swizzle(dim);
  TensorMap q_map{}, k_map{}, scale_map{};
  args.map_q = can_map(args.q, {p.q.stride[2], p.q.stride[1], p.q.stride[0]});
  if (args.map_q)
    q_map = tensor_map(target, p.q.dtype, const_cast<void*>(args.q), {dim, heads, next_n, batch},
                       {p.q.stride[2], p.q.stride[1], p.q.stride[0]},
                       {static_cast<uint32_t>(dim), static_cast<uint32_t>(heads),
                        static_cast<uint32_t>(queries), 1},
                       swizzle);
  // A box is a tile's part of a page; it must not begin inside of one of shared memory's 128 bytes.
  const bool even_pages = page_size == kScoreKeys / 2 || page_size % kScoreKeys == 0;
  args.map_pages = num_pages > 0 && even_pages && can_map(args.cache, {p.cache.stride[0]});
  if (args.map_pages) {
    const auto rows = static_cast<uint32_t>(std::min<int64_t>(page_size, kScoreKeys));
    uint8_t* cache = p.cache.as<uint8_t>();
    k_map = tensor_map(target, DType::kUInt8, cache, {dim, page_size, num_pages},
                       {dim, p.cache.stride[0]}, {static_cast<uint32_t>(dim), rows, 1}, swizzle);
    scale_map = tensor_map(target, DType::kFloat32, cache + page_size * dim, {page_size, num_pages},
                           {p.cache.stride[0]}, {rows, 1}, MapSwizzle::kNone);
  }

  const int64_t tiles = score_tiles(std::min(width, args.addressable));
  const int64_t blocks = batch * blocks_of_request;
  const Shape shape = score_shape(target, blocks * tiles, batch * next_n, queries, heads, dim);
  const std::string kernel = "paged_mqa_logits_h" + std::to_string(heads) + "_d" +
                             std::to_string(dim) + "_q" + std::to_string(queries);
  launch(target, "paged_mqa_logits.sm90", kernel.c_str(), shape, args, q_map, k_map, scale_map);
}

void paged_mqa_logits(const PagedMqaLogitsParams& p, const Target& target) {
  paged_mqa_logits(p, 0, target);
}

}  // namespace dsa::cuda
