// How many passes shared memory makes over an access, and how many sectors global memory.
#pragma once

#include <cstdint>

#include "program.h"

namespace ptx {

constexpr uint32_t kBanks = 32, kBankBytes = 4;
constexpr uint32_t kSectorBytes = 32;

struct Wavefronts {
  uint32_t needed = 0;
  uint32_t ideal = 0;  // without conflicts
};

// Of lanes that access `bytes` bytes each. Lanes share a word at no cost, but not in an atomic
// operation.
Wavefronts wavefronts(const uint64_t* addresses, Mask mask, uint32_t bytes, bool atomic);

}  // namespace ptx
