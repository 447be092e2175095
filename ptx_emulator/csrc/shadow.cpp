#include "shadow.h"

#include <bit>

namespace ptx {

Mask Entry::lanes_of(uint32_t some_bytes) const {
  if (static_cast<Sharing>(sharing) != Sharing::spread) return lanes;
  const int each = std::popcount(static_cast<uint32_t>(bytes)) / std::popcount(lanes);
  Mask result = 0;
  uint32_t left = static_cast<uint32_t>(bytes);
  for (Mask l = lanes; l; l &= l - 1) {
    uint32_t mine = 0;
    for (int i = 0; i < each; ++i, left &= left - 1) mine |= left & -left;
    if (mine & some_bytes) result |= l & -l;
  }
  return result;
}

void Entry::drop(uint32_t gone) {
  const uint32_t kept = static_cast<uint32_t>(bytes) & ~gone;
  if (static_cast<Sharing>(sharing) == Sharing::spread && kept) {
    const Mask without = lanes_of(gone), with = lanes_of(kept);
    if (without & with) {
      sharing = static_cast<uint64_t>(Sharing::some);
    } else {
      lanes = with;
    }
  }
  bytes = kept;
}

}  // namespace ptx
