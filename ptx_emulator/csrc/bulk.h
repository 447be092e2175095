// What bulk copies of bytes and of tensors share.
#pragma once

#include "async_copy.h"

namespace ptx {

constexpr const char* kBulkName = "a bulk copy";

// The copy lands later, and with it its group.
void issue_to_group(Warp& w, int lane, std::shared_ptr<Transfer> transfer);

// Calls f(destination, mbarrier), with the same offsets in each CTA of the mask, or just once if
// that is empty.
template <class F>
void for_each_destination(Warp& w, int lane, uint16_t ctas, uint64_t to, uint64_t barrier, F f) {
  if (!ctas) return f(to, barrier);
  const auto& all = w.cta->cluster->ctas;
  if (ctas >> all.size())
    throw Fault(Fault::memory,
                "a multicast to " + hex(ctas) + " in a cluster of " + std::to_string(all.size()),
                lane);
  for (size_t rank = 0; rank < all.size(); ++rank)
    if (ctas >> rank & 1) f(address_in(*all[rank], to), address_in(*all[rank], barrier));
}

enum class TensorCopy : uint8_t { copy, prefetch, reduce };
void encode_tensor(Encoding& e, TensorCopy kind);

}  // namespace ptx
