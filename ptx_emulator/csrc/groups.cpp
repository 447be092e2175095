// Lane groups of a warp: which of them runs, who waits for whom.
#include <algorithm>

#include "error.h"
#include "machine.h"
#include "races.h"
#include "warp.h"

namespace ptx {

Flow Warp::park(Wait wait, Mask lanes, uint32_t resume, Mask members, uint64_t key) {
  if (resume == pc) --counts[pc];  // it will be counted when it is tried again
  groups.push_back({resume, lanes, wait, members, pc, key});
  active &= ~lanes;
  if (active) groups.push_back({pc + 1, active});
  active = 0;
  return Flow::regroup;
}

bool Warp::gather(Mask mask, Mask members) {
  members &= alive;
  if ((members & ~mask) == 0) return true;
  park(Wait::lanes, mask, pc, members);
  return false;
}

void Warp::wake(Wait wait, uint64_t key) {
  bool any = false;
  for (Group& g : groups)
    if (g.wait == wait && g.key == key) {
      g.wait = Wait::none;
      any = true;
    }
  if (any) machine->ready(*this);
}

bool Warp::choose(bool rotate) {
  if (active) groups.push_back({pc, active});
  active = 0;
  // Groups at the same pc merge; one that waits there for more lanes runs again.
  for (size_t i = 0; i < groups.size(); ++i) {
    Group& g = groups[i];
    if (g.wait != Wait::none && g.wait != Wait::lanes) continue;
    for (size_t j = i + 1; j < groups.size();) {
      const Group& h = groups[j];
      if (h.pc == g.pc && (h.wait == Wait::none || h.wait == Wait::lanes)) {
        g.lanes |= h.lanes;
        g.wait = Wait::none;
        groups.erase(groups.begin() + static_cast<ptrdiff_t>(j));
      } else {
        ++j;
      }
    }
  }
  size_t best = groups.size();
  for (size_t i = 0; i < groups.size(); ++i) {
    if (groups[i].wait != Wait::none) continue;
    // The lowest pc, or the next one behind the group that has run long.
    const auto rank = [&](const Group& g) { return (uint64_t{rotate && g.pc <= pc} << 32) | g.pc; };
    if (best == groups.size() || rank(groups[i]) < rank(groups[best])) best = i;
  }
  if (best == groups.size()) return false;
  if (pc != groups[best].pc) slices = 0;
  pc = groups[best].pc;
  active = groups[best].lanes;
  groups.erase(groups.begin() + static_cast<ptrdiff_t>(best));
  merge_pc = ~0u;
  for (const Group& g : groups)
    if (g.wait <= Wait::lanes && g.pc > pc) merge_pc = std::min(merge_pc, g.pc);
  return true;
}

void Warp::exit(Mask lanes) {
  alive &= ~lanes;
  active &= ~lanes;
  // Who waits for the lanes that are gone looks again.
  for (Group& g : groups)
    if (g.wait == Wait::lanes) g.wait = Wait::none;
  release_warp_barriers();
}

void Warp::release_warp_barriers() {
  for (size_t i = 0; i < groups.size(); ++i) {
    if (groups[i].wait != Wait::warp_barrier) continue;
    const Mask members = groups[i].members;
    Mask here = 0;
    for (const Group& g : groups)
      if (g.wait == Wait::warp_barrier && g.members == members) here |= g.lanes;
    if (members & alive & ~here) continue;
    if (clock) machine->races->sync_lanes(*this, here);
    for (Group& g : groups)
      if (g.wait == Wait::warp_barrier && g.members == members) g.wait = Wait::none;
  }
}

}  // namespace ptx
