// The state of a warp: registers, and lanes in groups that share a pc.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "program.h"

namespace ptx {

struct Cta;
struct Machine;
struct WarpClock;

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
  kZero,
  kSharedBase,
  kDynamicShared,  // addresses in the shared window of the own CTA
  kSpecialCount,
};
constexpr uint64_t kSpecialBytes = kSpecialCount * kLanes * sizeof(uint32_t);

// Why a group of lanes does not run.
enum class Wait : uint8_t { none, lanes, warp_barrier, cta_barrier, cluster_barrier };

struct Group {
  uint32_t pc = 0;
  Mask lanes = 0;
  Wait wait = Wait::none;
  Mask members = 0;  // whom a group waits for: lanes of the warp
  int barrier = 0;
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
  Mask alive = 0;
  uint8_t* base[2] = {nullptr, nullptr};
  uint64_t* counts = nullptr;  // executions of each instruction
  Cta* cta = nullptr;
  Machine* machine = nullptr;
  WarpClock* clock = nullptr;  // null if races are not looked for
  std::vector<Group> groups;
  int index = 0;  // in the CTA
  Mask carry = 0;
  // Where the last access to global memory went.
  uint64_t last_begin = 0, last_end = 0;
  void* last_region = nullptr;
  std::unique_ptr<uint8_t[]> registers;
  std::vector<uint8_t> local;  // kLanes times Program::local_bytes

  // Parks the running group (at its present pc) until something wakes it.
  Flow park(Wait wait, Mask lanes, Mask members, int barrier = 0);
  bool done() const { return alive == 0; }
};

// Steps that the warp's machine has made; the scheduler's.
uint64_t elapsed(const Warp& w);

}  // namespace ptx
