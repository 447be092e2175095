// Division by a number that the host knows. Plain data, shared by host and device.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace dsa::cuda {

// n / d of any n < 2^31 as a product: multiplier = ceil(2^s / d) with 2^s >= 2^31 d, so that what
// it is too large by, less than 1 / d of n's unit, never reaches the next quotient. 32 of the s
// bits go with the upper half of a product of 32-bit numbers.
struct Divider {
  uint32_t multiplier, shift;  // shift: s - 31

  static Divider of(uint32_t d) {  // 1 <= d <= 2^31
    const uint32_t shift = std::bit_width(d - 1);
    return {static_cast<uint32_t>(((uint64_t{1} << (31 + shift)) + d - 1) / d), shift};
  }

  constexpr uint32_t quotient(uint32_t n) const {
    return static_cast<uint32_t>(uint64_t{2 * n} * multiplier >> 32) >> shift;
  }
};

// A number divided into blocks: which block, and where in it.
struct Place {
  uint32_t block, offset;
};

// Blocks of `size`, of which there are fewer than 2^32, as of what is in one: each takes memory.
struct Blocks {
  uint32_t size;
  Divider divider;

  static Blocks of(int64_t size) {
    const int64_t d = std::clamp(size, int64_t{1}, int64_t{1} << 31);
    return {static_cast<uint32_t>(size), Divider::of(static_cast<uint32_t>(d))};
  }

  // n >= 0, of any size.
  constexpr Place place_of(int64_t n) const {
    const uint32_t block = n <= INT32_MAX ? divider.quotient(static_cast<uint32_t>(n))
                                          : static_cast<uint32_t>(n / size);
    return {block, static_cast<uint32_t>(n) - block * size};
  }
};

}  // namespace dsa::cuda
