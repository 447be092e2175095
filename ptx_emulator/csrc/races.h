// Happens-before: who may know of whose accesses, and what was not ordered.
#pragma once

#include "access.h"
#include "machine.h"

namespace ptx {

struct WarpClock {};

class Races {
 public:
  explicit Races(Machine& machine) : machine_(machine) {}
  void start(Cluster&) {}
  void start(Warp&) {}
  void retire(Cluster&) {}
  void finish() {}

  // bar.warp.sync
  void sync_lanes(Warp&, Mask) {}

 private:
  Machine& machine_;
};

}  // namespace ptx
