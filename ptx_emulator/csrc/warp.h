// The state of a warp: registers, and lanes in groups that share a pc.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "program.h"

namespace ptx {

struct Block;
struct Cta;
class Machine;
class Profile;
struct WarpClock;

// What another module keeps with a warp, a CTA or a machine.
struct Attachment {
  virtual ~Attachment() = default;
};

// Registers that every warp has at the same place, in front of the program's own.
enum Special : uint32_t {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneId,
  kWarpId,
  kNwarpId,
  kSmId,
  kNsmId,
  kGridId,
  kLanemaskEq,
  kLanemaskLe,
  kLanemaskLt,
  kLanemaskGe,
  kLanemaskGt,
  kClusterIdX,
  kClusterIdY,
  kClusterIdZ,
  kNclusterIdX,
  kNclusterIdY,
  kNclusterIdZ,
  kClusterCtaIdX,
  kClusterCtaIdY,
  kClusterCtaIdZ,
  kClusterNctaIdX,
  kClusterNctaIdY,
  kClusterNctaIdZ,
  kClusterCtaRank,
  kClusterNctaRank,
  kDynamicSmemSize,
  kTotalSmemSize,
  kAggrSmemSize,
  kEnvReg1,  // the upper and the lower half of the address of the grid's workspace
  kEnvReg2,
  kZero,
  kSharedBase,
  kDynamicShared,  // addresses in the shared window of the own CTA
  kSpecialCount,
};
constexpr uint64_t kSpecialBytes = kSpecialCount * kLanes * sizeof(uint32_t);

// Why a group of lanes does not run.
enum class Wait : uint8_t {
  none,
  lanes,         // for its members to come to the same instruction
  warp_barrier,  // bar.warp.sync, for its members to come to any one
  cta_barrier,
  cluster_barrier,
  registers,  // setmaxnreg.inc
  async,      // for an asynchronous operation: mbarriers, groups of copies
};

struct Group {
  uint32_t pc = 0;
  Mask lanes = 0;
  Wait wait = Wait::none;
  Mask members = 0;  // whom a group waits for: lanes of the warp
  uint32_t at = 0;   // the waiting instruction; pc is where the group goes on
  uint64_t key = 0;  // what it waits for: a barrier's index or address
};

struct Warp {
  template <class T>
  const T* in(Ref ref) const {
    return reinterpret_cast<const T*>(base[ref >> 31] + (ref & ~kInConstants));
  }
  template <class T>
  T* out(Ref ref) {
    return reinterpret_cast<T*>(base[0] + ref);
  }
  Mask& pred(Ref ref) { return *out<Mask>(ref); }

  // The group that is running; the others are in `groups`.
  uint32_t pc = 0;
  Mask active = 0;
  uint32_t merge_pc = ~0u;  // where the next of the other groups is
  Mask alive = 0;
  Mask existing = 0;  // alive at the start
  uint8_t* base[2] = {nullptr, nullptr};
  uint64_t* counts = nullptr;   // executions of each instruction
  uint64_t* skipped = nullptr;  // those of them for which the guard of all lanes was false
  Cta* cta = nullptr;
  Machine* machine = nullptr;
  WarpClock* clock = nullptr;  // null if races are not looked for
  Profile* profile = nullptr;  // null if it is not asked for
  std::vector<Group> groups;
  int index = 0;  // in the CTA
  bool queued = false;
  uint32_t slices = 0;  // begun with the group that runs
  uint64_t polled = 0;  // when it last looked for what other warps do
  Mask carry = 0;
  const Block* last_block = nullptr;  // where the last access to global memory went
  std::unique_ptr<uint8_t[]> registers;
  uint64_t register_bytes = 0;
  std::vector<uint8_t> local;          // kLanes times Kernel::local_bytes
  std::vector<uint8_t> local_written;  // a flag per byte
  std::unique_ptr<Attachment> engines;

  // Parks lanes of the running group, which must include `lanes`; the others of the group, whose
  // guard was false, go on behind the instruction. The parked lanes go on at `resume`: the present
  // pc if the instruction is to be tried again.
  Flow park(Wait wait, Mask lanes, uint32_t resume, Mask members = 0, uint64_t key = 0);
  // Whether all lanes of `members` that are alive run this instruction; if not, parks until more
  // lanes come, and the handler must return Flow::regroup.
  bool gather(Mask mask, Mask members);
  // Lets the groups go on that wait like this for this.
  void wake(Wait wait, uint64_t key);
  // Chooses the group that runs next; false if none can.
  bool choose(bool rotate = false);
  void exit(Mask lanes);
  // Lets the groups in bar.warp.sync go on whose members have all come.
  void release_warp_barriers();
  bool done() const { return alive == 0; }
};

// Steps that the warp's machine has made; the scheduler's.
uint64_t elapsed(const Warp& w);

}  // namespace ptx
