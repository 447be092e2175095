#include "wavefronts.h"

#include <algorithm>

namespace ptx {
namespace {

// Passes over the words that some lanes touch: each bank gives one word a pass.
uint32_t passes(const uint64_t* words, uint32_t count) {
  uint32_t of_bank[kBanks] = {}, most = 0;
  for (uint32_t i = 0; i < count; ++i) most = std::max(most, ++of_bank[words[i] % kBanks]);
  return most;
}

}  // namespace

Wavefronts wavefronts(const uint64_t* addresses, Mask mask, uint32_t bytes, bool atomic) {
  Wavefronts out;
  // As many lanes go together as fill the banks.
  const uint32_t words_of_lane = std::max(bytes / kBankBytes, 1u), lanes = kBanks / words_of_lane;
  for (int first = 0; first < kLanes; first += static_cast<int>(lanes)) {
    uint64_t words[kBanks];
    uint32_t count = 0;
    for (uint32_t l = first; l < first + lanes; ++l)
      if (mask >> l & 1)
        for (uint32_t i = 0; i < words_of_lane; ++i) words[count++] = addresses[l] / kBankBytes + i;
    if (!count) continue;
    if (!atomic) {
      std::sort(words, words + count);
      count = static_cast<uint32_t>(std::unique(words, words + count) - words);
    }
    out.needed += passes(words, count);
    ++out.ideal;
  }
  return out;
}

}  // namespace ptx
