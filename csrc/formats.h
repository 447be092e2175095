// Cache record formats; dsa_kernels/formats.py describes them.
#pragma once

#include <cstdint>

namespace dsa {

constexpr int kValueDim = 512;  // d_v: the first dims of a key are its value
constexpr int kRopeDim = 64;
constexpr int kMaxIndexDim = 128;  // head_dim of the indexer is 64 or 128
constexpr int kIndexScaleBytes = 4;
constexpr float kFp8Max = 448.0f;
constexpr float kAmaxFloor = 1e-4f;

enum class CacheFormat : int8_t { kV32, kV4, kBFloat16 };

struct V32 {
  static constexpr int kNopeDim = 512, kGroupDim = 128, kGroups = 4;
  static constexpr int kRecordBytes = 656, kScaleOffset = 512, kRopeOffset = 528;
};

struct V4 {
  static constexpr int kNopeDim = 448, kGroupDim = 64, kGroups = 7;
  static constexpr int kRecordBytes = 584, kDataBytes = 576, kScaleBytes = 8, kRopeOffset = 448;
};

}  // namespace dsa
