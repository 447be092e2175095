// Who accessed each 16 bytes of memory, and when.
#pragma once

#include <cstdint>

namespace ptx {

struct Cell {
  uint64_t words[8];
};

}  // namespace ptx
