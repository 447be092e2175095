// Barriers of a CTA and of a cluster, and the register pool of a CTA.
#pragma once

#include "clocks.h"
#include "machine.h"

namespace ptx {

const Program& program_of(const Warp& w);

struct Barrier {
  bool in_use = false;
  uint32_t count = 0;           // threads that must come; 0: all of the CTA that have not exited
  uint32_t arrived = 0;         // threads that have
  std::vector<bool> came;       // warps
  std::vector<Mask> partly;     // lanes of warps of which not all have
  uint32_t yes = 0, votes = 0;  // of .red
  struct Waiter {
    Warp* warp;
    Mask lanes;
    const Instr* instr;
  };
  std::vector<Waiter> waiters;
  Knowledge known;
  std::vector<Published> users;  // who came, without what they knew
};

struct CtaBarriers : Attachment {
  Barrier barriers[16];
  std::vector<Published> last_users[16];  // the time before, if those were not all threads
  Knowledge exited;                       // what threads did that have exited
  // setmaxnreg
  uint64_t free_registers = 0;
  std::vector<uint32_t> registers;  // per thread, of each warp
};

struct ClusterBarrier : Attachment {
  struct OfWarp {
    Mask arrived = 0;  // in the present phase
    Mask pending = 0;  // arrived and not yet waited
  };
  std::vector<OfWarp> warps;
  Knowledge gathering, known;  // of the present and of the last phase
};

CtaBarriers& barriers_of(Cta& cta);
ClusterBarrier& barrier_of(Cluster& cluster);

// Lanes of w come to barrier `index` of their CTA. Waiting ones have been parked, or, if this
// completes the barrier, are among its waiters all the same.
void arrive(Warp& w, uint32_t index, uint32_t count, Mask lanes, bool votes, Mask yes);
// Lanes that exit no longer take part in barriers.
void lanes_exited(Warp& w, Mask lanes);
std::string barrier_text(const Cta& cta, uint64_t index);

}  // namespace ptx
