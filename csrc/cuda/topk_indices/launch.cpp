#include <algorithm>
#include <stdexcept>
#include <string>

#include "../ops.h"
#include "kernel.h"

namespace dsa::cuda {
namespace {

// Entries for which one CTA reads faster than two would agree.
constexpr int64_t kLeastSlice = 16384;

// The CTAs of a row: more than one as long as all of them find an SM.
int cluster_size(int64_t num_rows, int64_t seq_len, int num_sms) {
  int size = 1;
  while (size < kTopkMaxCluster && num_rows * size * 2 <= num_sms &&
         seq_len >= kLeastSlice * size * 2)
    size *= 2;
  return size;
}

}  // namespace

void topk_indices(const TopkIndicesParams& p, const Target& target) {
  const int64_t num_rows = p.scores.size[0], seq_len = p.scores.size[1];
  if (num_rows == 0) return;
  if (seq_len > kTopkMaxEntries)
    throw std::runtime_error("topk_indices: the CUDA kernel takes rows of up to " +
                             std::to_string(kTopkMaxEntries) + " scores; got " +
                             std::to_string(seq_len) + ". Split the row.");

  TopkIndicesArgs args{};
  args.scores = p.scores.as<float>();
  args.row_start = p.row_start.as<int>();
  args.row_end = p.row_end.as<int>();
  args.out = p.out.as<int>();
  args.scores_stride = p.scores.stride[0];
  args.out_stride = p.out.stride[0];
  args.num_rows = static_cast<int>(num_rows);
  args.seq_len = static_cast<int>(seq_len);
  args.topk = static_cast<int>(p.topk);
  args.capacity = topk_capacity(args.topk);

  Shape shape;
  shape.cluster = cluster_size(num_rows, seq_len, target.num_sms);
  shape.grid[0] = static_cast<uint32_t>(num_rows * shape.cluster);
  shape.block = kTopkThreads;
  shape.shared_bytes = topk_shared_bytes(args.capacity, shape.cluster > 1);
  launch(target, "topk_indices.sm90",
         shape.cluster > 1 ? "topk_indices_cluster" : "topk_indices_cta", shape, args);
}

}  // namespace dsa::cuda
