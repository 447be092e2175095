// Asking for memory ahead of its use. Hardware follows a run of addresses only to the end of its
// 4 KiB page, and a cache's pages and records lie anywhere.
#pragma once

#include <cstdint>

namespace dsa::cpu {

// Reads a byte of each 4 KiB page of [from, from + bytes), so that their addresses can be
// translated: a prefetch of an address that the TLB lacks is dropped (seen on Zen 5). Misses of
// touches that follow each other overlap.
inline void touch(const void* from, int64_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(from);
  for (uintptr_t at = begin; at < begin + bytes; at = (at | 4095) + 1) {
    (void)*reinterpret_cast<const volatile char*>(at);
  }
}

inline void prefetch(const void* from, int64_t bytes) {
  const char* p = static_cast<const char*>(from);
#if defined(__GNUC__)
  asm volatile("");  // gcc drops calls of a function that does nothing but prefetch
#endif
  for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(p + b);
}

}  // namespace dsa::cpu
