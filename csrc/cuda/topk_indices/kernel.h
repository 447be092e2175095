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
constexpr int kTopkMaxCluster = 8;                          // the most that is portable
constexpr int64_t kTopkMaxEntries = INT32_MAX - (1 << 18);  // of a row; tiles' indices are ints

// Twice the candidates that a good guess lets through; rows of so many entries need no guess. The
// most is what shared memory has room for in a cluster.
constexpr int topk_capacity(int topk) {
  return topk <= 1024 ? 4096 : topk <= 3840 ? 4 * topk : 15360;
}

// SelectShared, the candidates (8 bytes each) and, in a cluster, the keys of all CTAs' (4 bytes).
constexpr int kTopkSharedBytes = 41600;
constexpr int topk_shared_bytes(int capacity, bool clustered) {
  return kTopkSharedBytes + capacity * (clustered ? 12 : 8);
}

}  // namespace dsa
