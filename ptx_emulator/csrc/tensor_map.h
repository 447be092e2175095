// Tensor maps: what cuTensorMapEncodeTiled makes, in an encoding of our own, and the walk over a
// box that a tensor copy makes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "swizzle.h"

namespace ptx {

constexpr int kMaxRank = 5;

// The arguments of cuTensorMapEncodeTiled, enumerations as the driver's numbers.
struct TensorMapArguments {
  int32_t data_type, rank;
  uint64_t address;
  uint64_t dims[kMaxRank];
  uint64_t strides[kMaxRank - 1];  // bytes, of dimensions 1 and up
  uint32_t box[kMaxRank];
  uint32_t element_strides[kMaxRank];
  int32_t interleave, swizzle, l2_promotion, oob_fill;
};

// What the driver calls the argument and what is wrong with it; empty if it takes them.
std::string check(const TensorMapArguments& a);

// Conversions that a load makes on the way.
enum class OnLoad : uint8_t { nothing, flush, tf32, tf32_flush };
enum class Fill : uint8_t { zero, nan16, nan_bf16, nan32, nan64 };

// Lies in the 128 bytes of a CUtensorMap; kernels copy it and hand out its address.
struct TensorMap {
  static constexpr uint64_t kMagic = 0x50616d726f736e54ull;  // "TnsormaP"

  uint64_t magic;
  uint64_t address;
  uint64_t strides[kMaxRank];  // bytes; of dimension 0 the element size
  uint32_t last[kMaxRank];     // dims - 1
  uint16_t box[kMaxRank];
  uint8_t step[kMaxRank];
  uint8_t rank, element_bytes, data_type, interleave, oob_fill;
  Swizzle swizzle;

  uint32_t rows_of(int dim) const { return (box[dim] + step[dim] - 1) / step[dim]; }
  uint32_t row_bytes() const { return uint32_t{box[0]} * element_bytes; }
  // From one row to the next in shared memory: a swizzle takes its whole span.
  uint32_t row_pitch() const;
  uint32_t box_bytes() const;      // what a copy moves, and reports to its mbarrier
  uint32_t shared_extent() const;  // from the first byte to behind the last
  OnLoad on_load() const;
  Fill fill() const;
};
constexpr int kTensorMapBytes = 128;
static_assert(sizeof(TensorMap) <= kTensorMapBytes);

// The arguments must have passed check(). What the driver encodes but we don't model is named.
std::optional<std::string> encode(const TensorMapArguments& a, TensorMap& out);

// Why the bytes are no tensor map that a copy may use; empty if they are one.
std::string check(const TensorMap& m);

// A piece of a box that is contiguous on both sides.
struct Run {
  uint64_t global;  // 0 if out of bounds
  uint64_t shared;  // the address, swizzled
  uint32_t bytes;
  bool in_bounds;
};

// Calls f(Run) for all pieces of the box at the coordinates, in the order of shared memory.
template <class F>
void for_each_run(const TensorMap& m, const int32_t* coordinates, uint64_t shared, F f) {
  const int64_t element = m.element_bytes, width = m.box[0], first = coordinates[0];
  const int64_t dim0 = int64_t{m.last[0]} + 1;
  const auto clamp = [&](int64_t i) { return i < 0 ? 0 : i > width ? width : i; };
  const int64_t begin = clamp(-first) * element, end = clamp(dim0 - first) * element;
  const int64_t row_bytes = width * element;
  // A swizzle moves chunks of 16 bytes; without one a row is a piece.
  const int64_t chunk = m.swizzle == Swizzle::none ? row_bytes : 16;
  uint32_t index[kMaxRank] = {};
  for (uint64_t row = shared;; row += m.row_pitch()) {
    uint64_t global = m.address + first * element;
    bool inside = begin < end;
    for (int d = 1; d < m.rank; ++d) {
      const int64_t at = int64_t{coordinates[d]} + int64_t{index[d]} * m.step[d];
      inside = inside && at >= 0 && at <= int64_t{m.last[d]};
      global += static_cast<uint64_t>(at) * m.strides[d];
    }
    for (int64_t at = 0; at < row_bytes;) {
      int64_t stop = at / chunk * chunk + chunk;
      const bool in_bounds = inside && at >= begin && at < end;
      if (in_bounds)
        stop = stop < end ? stop : end;
      else if (inside && at < begin)
        stop = stop < begin ? stop : begin;
      f(Run{in_bounds ? global + at : 0, swizzled(row + at, m.swizzle),
            static_cast<uint32_t>(stop - at), in_bounds});
      at = stop;
    }
    int d = 1;
    while (d < m.rank && ++index[d] == m.rows_of(d)) index[d++] = 0;
    if (d >= m.rank) return;
  }
}

}  // namespace ptx
