// Division by a number that the host knows. Plain data, shared by host and device.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace dsa::cuda {

// n / d of any n < 2^31 as a product: multiplier = ceil(2^shift / d) with 2^shift >= 2^31 d, so
// that what it is too large by, less than 1 / d of n's unit, never reaches the next quotient.
struct Divider {
  uint32_t multiplier, shift;

  static Divider of(uint32_t d) {  // 1 <= d <= 2^31
    const uint32_t shift = 31 + std::bit_width(d - 1);
    return {static_cast<uint32_t>(((uint64_t{1} << shift) + d - 1) / d), shift};
  }

  constexpr uint32_t quotient(uint32_t n) const {
    return static_cast<uint32_t>(uint64_t{n} * multiplier >> shift);
  }
};

// Tokens of a page, and where a slot or a position lies: 0 <= slot, any size.
struct PageSize {
  int64_t tokens;
  Divider divider;

  static PageSize of(int64_t tokens) {
    const int64_t d = std::clamp(tokens, int64_t{1}, int64_t{1} << 31);
    return {tokens, Divider::of(static_cast<uint32_t>(d))};
  }

  constexpr int64_t page_of(int64_t slot) const {
    return slot <= INT32_MAX ? divider.quotient(static_cast<uint32_t>(slot)) : slot / tokens;
  }
};

}  // namespace dsa::cuda
