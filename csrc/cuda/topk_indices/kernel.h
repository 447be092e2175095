// Arguments of topk_indices' kernels. Strides in elements.
#pragma once

#include <cstdint>

namespace dsa {

struct TopkIndicesArgs {
  const float* scores;   // [num_rows, seq_len]
  const int* row_start;  // [num_rows] or null
  const int* row_end;    // [num_rows] or null
  int* out;              // [num_rows, topk]
  int64_t scores_stride, out_stride;
  int num_rows, seq_len, topk;
  int capacity;  // candidates that a CTA has room for
};

constexpr int kTopkThreads = 512;
constexpr int kTopkMaxCluster = 8;  // the most that every GPU with clusters can place

// Room for twice the candidates that a good guess lets through; rows up to this size need no guess.
constexpr int topk_capacity(int topk) {
  return topk > 1024 ? 4 * topk : 4096;
}

constexpr int64_t kTopkMaxEntries =
    INT32_MAX - 65536;  // so that int indices of tiles don't overflow

// SelectShared, then the candidates (8 bytes) and, in a cluster, the keys of all CTAs' (4 bytes).
constexpr int kTopkSharedBytes = 41600;
constexpr int topk_shared_bytes(int capacity, bool clustered) {
  return kTopkSharedBytes + capacity * (clustered ? 12 : 8);
}

}  // namespace dsa
