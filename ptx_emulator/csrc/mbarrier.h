// mbarrier objects. The word in shared memory is an image of the state that is kept here, so that
// whoever overwrites it is noticed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "clocks.h"
#include "program.h"

namespace ptx {

struct Warp;
struct Cta;

struct Mbarrier {
  static constexpr int64_t kMostCount = (1 << 20) - 1;

  uint64_t address = 0;
  int64_t expected = 0, pending = 0;  // arrivals
  int64_t tx = 0;                     // bytes; negative if they came before they were expected
  uint64_t phase = 0;                 // completed phases
  std::vector<Warp*> waiters;
  // For races: the copies that complete here, in phases of their own count; who initialised it;
  // what who arrived knows, in this phase and in those before.
  Agent agent = 0, store_agent = 0;  // of copies; of st.async and red.async, once there are any
  uint32_t first_time = 0;
  Published initialised;
  bool init_fenced = false;  // by a fence.mbarrier_init of that thread
  Knowledge arriving, released;

  uint32_t time() const { return first_time + static_cast<uint32_t>(phase) + 1; }
  uint64_t image() const;
  std::string describe() const;
};

// The object at a generic address; a Fault if there is none or its word was overwritten.
Mbarrier& mbarrier_at(Warp& w, uint64_t address, int lane);
// The same for lanes that use it, which must know of its initialisation.
Mbarrier& use_mbarrier(Warp& w, uint64_t address, int lane);
// A copy by another CTA's thread, whose view this is, is to complete at the object.
void check_remote_copy(Warp& w, const Mbarrier& b, const Published& view, int lane);
void fence_mbarrier_inits(Warp& w, Mask mask);  // fence.mbarrier_init
void init_mbarrier(Warp& w, uint64_t address, uint32_t count, int lane);
void invalidate_mbarrier(Warp& w, uint64_t address, int lane);

// What lanes know goes to who waits for the phase; who has waited for it.
void publish(Warp& w, Mbarrier& b, int lane);
void observe(Warp& w, const Mbarrier& b, Mask lanes);

// Each may complete the phase, which wakes who waits for it.
void expect_tx(Warp& w, Mbarrier& b, int64_t bytes, int lane);
void complete_tx(Warp& w, Mbarrier& b, int64_t bytes, int lane);
void arrive(Warp& w, Mbarrier& b, int64_t count, int lane);
void add_pending(Warp& w, Mbarrier& b, int64_t count, int lane);  // for arrivals to come
void drop(Warp& w, Mbarrier& b, int64_t count, int lane);

}  // namespace ptx
