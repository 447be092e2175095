#include "cell_groups.h"

#include <bit>
#include <span>

namespace ptx {
namespace {

// Lanes that come to a cell one after another are taken together if they access the same bytes, or
// each a part of its own.
bool take(CellGroup& g, uint32_t bytes, Mask lane, bool parts) {
  const bool one = std::has_single_bit(g.lanes);
  if (g.bytes == bytes && (one || g.sharing == Sharing::each)) {
    g.sharing = Sharing::each;
  } else if (parts && bytes > g.bytes && !(bytes & g.bytes) &&
             (one || g.sharing == Sharing::spread)) {
    g.sharing = Sharing::spread;
    g.bytes |= bytes;
  } else {
    return false;
  }
  g.lanes |= lane;
  return true;
}

// With `parts`: 0 if lanes come back to a cell that others are between.
int group(const Access& a, bool parts, std::span<CellGroup> groups) {
  const uint32_t ones = (1u << a.bytes) - 1;
  size_t count = 0;
  uint64_t met = 0;  // the last bits of the cells so far
  for (Mask left = a.mask; left; left &= left - 1) {
    const uint64_t at = a.at[__builtin_ctz(left)], cell = at & ~uint64_t{15};
    const Mask lane = left & -left;
    const uint32_t bytes = ones << (at & 15);
    if (count && groups[count - 1].cell == cell && take(groups[count - 1], bytes, lane, parts))
      continue;
    const uint64_t bit = uint64_t{1} << (cell >> 4 & 63);
    bool taken = false;
    if (met & bit)
      for (CellGroup& g : groups.first(count)) {
        if (taken || g.cell != cell) continue;
        if (parts) return 0;
        taken = take(g, bytes, lane, false);
      }
    met |= bit;
    if (!taken) groups[count++] = {cell, bytes, lane, Sharing::each};
  }
  return static_cast<int>(count);
}

}  // namespace

int group_by_cells(const Access& a, CellGroup (&groups)[kLanes]) {
  const int count = group(a, true, groups);
  return count ? count : group(a, false, groups);
}

}  // namespace ptx
