#include "shadow.h"

#include <bit>

namespace ptx {

Mask Entry::lanes_of(uint32_t some_bytes) const {
  if (static_cast<Sharing>(sharing) == Sharing::each) return lanes;
  Mask result = 0;
  for (Mask l = lanes; l; l &= l - 1)
    if (bytes_of(l & -l) & some_bytes) result |= l & -l;
  return result;
}

uint32_t Entry::bytes_of(Mask lane) const {
  auto left = static_cast<uint32_t>(bytes);
  if (static_cast<Sharing>(sharing) == Sharing::each) return left;
  const int part = std::popcount(left) / std::popcount(lanes);
  const int before = part * std::popcount(lanes & (lane - 1));
  for (int i = 0; i < before; ++i) left &= left - 1;
  uint32_t behind = left;
  for (int i = 0; i < part; ++i) behind &= behind - 1;
  return left & ~behind;
}

void Entry::drop(uint32_t gone, std::vector<Entry>& rest) {
  if (static_cast<Sharing>(sharing) == Sharing::spread) {
    const Entry whole = *this;
    const Mask touched = lanes_of(gone);
    for (Mask l = touched; l; l &= l - 1) {
      const Mask lane = l & -l;
      const uint32_t all = whole.bytes_of(lane);
      bytes &= ~all;
      if (!(all & ~gone)) continue;
      rest.push_back(whole);
      rest.back().lanes = lane;
      rest.back().sharing = static_cast<uint64_t>(Sharing::each);
      rest.back().bytes = all & ~gone;
    }
    lanes &= ~touched;
  }
  bytes &= ~gone;
}

}  // namespace ptx
