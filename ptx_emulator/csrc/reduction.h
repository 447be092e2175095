// Reductions that copies make at their destination.
#pragma once

#include <cstdint>

#include "types.h"

namespace ptx {

enum class Reduction : uint8_t { add, min, max, inc, dec, bit_and, bit_or, bit_xor };

bool can_reduce(Reduction r, Type type);
// d[i] = d[i] op s[i] for `bytes` bytes.
void reduce(Reduction r, Type type, uint8_t* d, const uint8_t* s, uint32_t bytes);

}  // namespace ptx
