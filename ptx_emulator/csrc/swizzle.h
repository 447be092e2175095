// The swizzles of shared memory: 16-byte chunks change places within a span of 32, 64 or 128 bytes.
#pragma once

#include <cstdint>

namespace ptx {

enum class Swizzle : uint8_t { none, b32, b64, b128 };

inline uint32_t span_of(Swizzle s) {
  return 16u << static_cast<int>(s);
}

// Bits 4 and up are xored with as many bits from 7 up. These are bits of the address itself, not of
// an offset in a tile, so a tile need not start at a multiple of the pattern.
inline uint64_t swizzled(uint64_t address, Swizzle s) {
  const uint64_t chunk = span_of(s) / 16 - 1;
  return address ^ ((address >> 7 & chunk) << 4);
}

}  // namespace ptx
