// What the asynchronous engines keep with CTAs and warps, and what their opcodes share.
#pragma once

#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "access.h"
#include "barriers.h"
#include "encoding.h"
#include "machine.h"
#include "mbarrier.h"
#include "races.h"

namespace ptx {

// What groups of lanes wait for, as keys of Wait::async; the address of an mbarrier is a key too.
enum AsyncKey : uint64_t { kCopyKey = 1, kBulkKey, kWgmmaKey };

struct Warpgroup;
struct WgmmaState;

struct CtaEngines : Attachment {
  std::unordered_map<uint32_t, Mbarrier> mbarriers;  // by offset in the CTA's window
  struct MbarrierAgent {
    Agent agent = 0, store_agent = 0;
    uint32_t time = 0;
  };
  std::unordered_map<uint32_t, MbarrierAgent> mbarrier_agents;
  std::vector<std::unique_ptr<Warpgroup>> warpgroups;
  CtaEngines();
  ~CtaEngines() override;
};

// Asynchronous operations in groups, which each thread commits and waits for on its own.
struct AsyncGroups {
  struct Operation {
    Mask lanes;
    uint32_t group;
    uint32_t time = 0;    // for races; increases from group to group
    bool reading = true;  // the source has not been read yet
    bool done = false;
  };
  uint32_t open[kLanes] = {};  // the group that is not committed
  uint32_t time = 1;
  std::vector<uint32_t> times;  // of the last operations in each group
  std::vector<std::shared_ptr<Operation>> pending;
  // Of bulk copies: the last group with a copy by that instruction and lane whose read of shared
  // memory nobody has waited for.
  struct Unread {
    uint32_t pc, group;
    int lane;
  };
  std::vector<Unread> unread;

  // One operation for each group that lanes of the mask have open.
  std::vector<std::shared_ptr<Operation>> issue(Mask mask);
  void commit(Mask mask);
  // Up to which time all operations are over once all but `allowed` groups are, 0 if none is. Lanes
  // that have committed none are taken out of the mask.
  uint32_t time_before(Mask& mask, uint32_t allowed) const;
  // Whether all but the last `allowed` groups of these lanes are done, or have read their sources.
  bool waiting(Mask mask, uint32_t allowed, bool only_reads) const;
  // Whether these lanes have any operation that is not done.
  bool any(Mask mask) const;
  void finish(Operation& op);
  void note_unread(const Unread& copy);
  void note_waited(Mask mask, uint32_t allowed);
};

struct WarpEngines : Attachment {
  AsyncGroups copies, bulk;
  // Arrivals that wait for copies: cp.async.mbarrier.arrive.
  struct Arrival {
    std::vector<std::shared_ptr<AsyncGroups::Operation>> after;
    std::function<void()> arrive;
  };
  std::vector<Arrival> arrivals;
  uint32_t gave_up_at = ~0u;  // the mbarrier.try_wait that just gave up
  std::unique_ptr<WgmmaState> wgmma;
  // For races: copies, and reads and writes of bulk copies; 0: not made yet.
  Agent copy_agent = 0, bulk_read_agent = 0, bulk_write_agent = 0;
  WarpEngines();
  ~WarpEngines() override;
};

// The agent, made at its first use: what it is, of this warp.
Agent agent_of(Warp& w, Agent& agent, const char* what, Proxy proxy);

CtaEngines& engines_of(Cta& cta);
WarpEngines& engines_of(Warp& w);

// Where the address operands of an instruction lie, for those that have several.
class AddressCode {
 public:
  static constexpr int kWords = 4;
  // Appends to the instruction's further operands.
  static void encode(Encoding& e, const Operand& o, Space space, std::vector<Ref>& words);
  AddressCode(const Warp& w, const Ref* words);
  uint64_t operator()(int lane) const;  // a generic address

 private:
  const uint32_t* narrow_ = nullptr;
  const uint64_t* wide_ = nullptr;
  uint64_t offset_, window_;
};

// Runs the action when mode and seed have it, for an instruction that is running. It needs the
// shared memory of a CTA: that this has exited before is a Fault, or drops what nobody can see.
// Faults name the instruction.
enum class AtExit : uint8_t { fault, drop };
void run_later(Warp& w, uint32_t pc, int lane, const char* what, const Cta& needed,
               std::function<void()> action, AtExit at_exit = AtExit::fault);

inline bool is_eager(const Warp& w) {
  return w.machine->options.mode == Mode::eager;
}

// The CTA whose shared memory holds the address.
Cta& owner_of(Warp& w, uint64_t address);
uint64_t address_in(const Cta& cta, uint64_t address);  // the same offset in another CTA

// A CTA that is about to end has its bulk copies read its shared memory, as an SM keeps a CTA's
// shared memory for them; but nothing promises it, so that nobody has waited for them is a race.
void finish_reads(Cta& cta);

// What a key of Wait::async stands for.
std::string awaited_text(const Warp& w, uint64_t key);

// `.sync.aligned`: waits for all lanes of the warp that are alive.
inline bool gather_warp(Warp& w, Mask mask) {
  return w.gather(mask, w.alive);
}

std::vector<Operand> elements_of(const Operand& o);  // of a vector, or the operand alone

}  // namespace ptx
