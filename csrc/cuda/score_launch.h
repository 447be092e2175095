// What the launchers of indexer scores share; the kernels are those of device/indexer_score.cuh.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "device/indexer_score.h"
#include "launch.h"
#include "tensor_map.h"

namespace dsa::cuda {

// A tensor map's box of rows of `row_bytes`: as wide as the swizzle, which has 128 bytes at most.
inline MapSwizzle score_swizzle(int64_t row_bytes) {
  return row_bytes >= 128 ? MapSwizzle::k128 : MapSwizzle::k64;
}
inline uint32_t score_box_width(int64_t row_bytes, int64_t element) {
  return static_cast<uint32_t>(std::min<int64_t>(row_bytes, 128) / element);
}

inline int64_t score_tiles(int64_t keys) {
  return (keys + kScoreKeys - 1) / kScoreKeys;
}

// The kernels count rows, keys and columns in 32 bits, keys up to the end of a tile.
inline void check_score_sizes(const char* op, std::initializer_list<int64_t> sizes) {
  if (std::max(sizes) > INT32_MAX - kScoreKeys)
    throw std::runtime_error(std::string(op) + ": the CUDA kernel takes fewer than 2^31 - " +
                             std::to_string(kScoreKeys) + " rows, keys and columns.");
}

// For blocks of `queries` query tokens, with at most so many tiles, and `rows` rows to fill.
inline Shape score_shape(const Target& target, int64_t tiles, int64_t rows, int64_t queries,
                         int64_t heads, int64_t row_bytes) {
  constexpr int64_t kFillingWarps = 3;
  const int64_t filling = (rows + kFillingWarps - 1) / kFillingWarps;
  Shape shape;
  shape.grid[0] =
      static_cast<uint32_t>(std::clamp<int64_t>(std::max(tiles, filling), 1, target.num_sms));
  shape.block = kScoreThreads;
  shape.shared_bytes = static_cast<uint32_t>(score_shared_bytes(
      static_cast<int>(queries), static_cast<int>(heads), static_cast<int>(row_bytes)));
  return shape;
}

}  // namespace dsa::cuda
