// What launchers of indexer scores know of the kernels in indexer_score.cuh.
#pragma once

#include <cstddef>

namespace dsa {

constexpr int kScoreKeys = 64;  // keys of a tile
constexpr int kScoreThreads = 384;

// Tiles of keys in flight; even, since a warpgroup has every other one.
constexpr int score_stages(int row_bytes) {
  return row_bytes > 128 ? 4 : 8;
}

// Shared memory for blocks of `queries` query tokens and rows of `row_bytes` of q and k.
constexpr size_t score_shared_bytes(int queries, int heads, int row_bytes) {
  const size_t n = static_cast<size_t>(queries) * heads;
  const size_t operands =
      2 * ((n * row_bytes + 1023) / 1024 * 1024) +
      static_cast<size_t>(score_stages(row_bytes)) * kScoreKeys * (row_bytes + 4);
  const size_t rest = 8 * n + 16 * queries + 640;  // weights, ranges, barriers
  return (operands + rest + 1023) / 1024 * 1024;
}

}  // namespace dsa
