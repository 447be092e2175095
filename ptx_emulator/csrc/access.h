// The memory accesses of one instruction for its 32 lanes: addresses, checks, and what races need.
#pragma once

#include "error.h"
#include "lanes.h"
#include "memory.h"
#include "warp.h"

namespace ptx {

struct Access {
  alignas(64) uint64_t at[kLanes];  // generic addresses
  Mask mask;
  uint32_t bytes;  // of a lane
  enum Shape : uint8_t { contiguous, uniform, scattered } shape;
};

// How an access takes part in races.
struct Manner {
  bool reads = false, writes = false;
  Order order = Order::weak;
  Scope scope = Scope::cta;
};

// The addresses of an instruction's operand a, with imm, space and wide_address.
void find_addresses(const Warp& w, const Instr& in, Mask mask, uint32_t bytes, Access& out);
void find_shape(Access& a);

// The block in which the bytes lie, in global memory or the shared memory of any CTA of the
// cluster; a Fault if there is none.
const Block& locate(Warp& w, uint64_t address, uint64_t bytes, int lane, const char* what);

// An address in words that don't depend on where the host has put what the kernel was given.
std::string place_of(const Machine& machine, uint64_t address);
std::string misaligned(const Warp& w, uint64_t address, uint64_t align);
void check_alignment(const Warp& w, const Access& a, uint32_t align);
void check_written(Warp& w, const Block& block, const Access& a);
void set_written(const Block& block, const Access& a);
// A Fault, but where races are looked for, as it may be the consequence of one: then the launch
// goes on, and the fault is reported at its end.
void never_written(Warp& w, uint64_t address, uint64_t bytes, int lane);

// Looks for races of the access with earlier ones and remembers it. Only called with Warp::clock.
void check_races(Warp& w, const Block& block, const Access& a, const Manner& manner);

// Adds the access to the profile. Only called with Warp::profile.
void note_access(Warp& w, const Access& a, const Manner& manner);

// A lane's own memory; `offset` counts from the start of the local window.
uint8_t* local_bytes(Warp& w, int lane, uint64_t offset, uint64_t bytes, bool writes);

// Calls move(block, access) for the lanes of each block, once the checks have passed, and
// move_local(lane, bytes of the lane's own memory).
template <class Move, class MoveLocal>
void access_memory(Warp& w, Access& a, const Manner& manner, uint32_t align, Move move,
                   MoveLocal move_local) {
  check_alignment(w, a, align);
  if (w.profile) note_access(w, a, manner);
  const Mask all = a.mask;
  Mask local = 0;
  if (a.at[__builtin_ctz(all)] - kLocalWindow < kWindowBytes || a.shape == Access::scattered)
    local = all & lanes_where([&](int l) { return a.at[l] - kLocalWindow < kWindowBytes; });
  for_each_lane(local, [&](int l) {
    move_local(l, local_bytes(w, l, a.at[l] - kLocalWindow, a.bytes, manner.writes));
  });
  const char* what = manner.reads ? (manner.writes ? "an atomic operation" : "a read") : "a write";
  for (Mask left = all & ~local; left;) {
    const int first = __builtin_ctz(left);
    const Block& block = locate(w, a.at[first], a.bytes, first, what);
    if (manner.writes && block.read_only)
      throw Fault(Fault::memory, "a write to " + block.name + ", which is constant", first);
    const uint64_t begin = block.begin, last = block.end - block.begin - a.bytes;
    a.mask = left & lanes_where([&](int l) { return a.at[l] - begin <= last; });
    left &= ~a.mask;
    if (a.mask != all) a.shape = Access::scattered;
    if (manner.reads && block.written) check_written(w, block, a);
    if (w.clock && block.cells) check_races(w, block, a, manner);
    move(block, a);
    if (manner.writes && block.written) set_written(block, a);
  }
  a.mask = all;
}

}  // namespace ptx
