// Which lanes of an access are remembered together.
#pragma once

#include "access.h"
#include "shadow.h"

namespace ptx {

// Lanes that access bytes of one cell.
struct CellGroup {
  uint64_t cell;   // its address
  uint32_t bytes;  // a bit each, as in Entry
  Mask lanes;
  Sharing sharing;
};

// Of an access of less than 16 bytes a lane; returns how many groups there are.
int group_by_cells(const Access& a, CellGroup (&groups)[kLanes]);

}  // namespace ptx
