// What a launch does to memory, for those who ask: bytes, sectors and bank conflicts by warp and
// instruction, and which sectors were touched at all.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "memory.h"
#include "program.h"

namespace ptx {

struct Access;
struct Manner;
struct Warp;

// What moves bytes to and from global memory.
enum class Path : uint8_t { direct, copy, bulk, atomic };  // ld and st; cp.async; bulk; atom, red
constexpr int kPaths = 4;

// A contiguous part of a copy. Source or target is null if it is no memory.
struct MovedBytes {
  const Block *source, *target;
  uint64_t from, to;
  uint32_t bytes;
};

// All that a copy moves.
struct Moved {
  std::vector<MovedBytes> parts;
  bool from_registers = false;
  bool again = false;  // to another destination of a multicast, whose source has been read
};

class Profile {
 public:
  // Totals of an instruction over all executions by warps of one index.
  enum Counter {
    kGlobalRequests,  // warp accesses, or copies
    kGlobalRead,      // bytes, as lanes ask for them
    kGlobalWritten,
    kSectors,     // of all requests
    kSharedRead,  // bytes, as lanes or copies ask for them; of wgmma, its operands
    kSharedWritten,
    kRemoteRead,  // of the shared memory of another CTA
    kRemoteWritten,
    kWavefronts,  // of the own shared memory
    kIdealWavefronts,
    kLocal,  // bytes of local memory, read and written
    kCounters
  };

  Profile(const Program& program, size_t warps);

  // The instruction at the warp's pc does this: ld, st, atomics, also ldmatrix and stmatrix with
  // the lanes that have a row's address.
  void access(Warp& w, const Access& a, const Manner& manner);
  void copy(Warp& w, const Moved& moved);       // issued by one lane, or a warp's cp.async
  void read_operands(Warp& w, uint32_t bytes);  // the warp's share of a wgmma's operands

  // Rows of pc and counters, for warps of one index.
  std::vector<uint64_t> rows(size_t warp) const;
  size_t warps() const { return by_warp_.size(); }
  // The sectors of global memory that were read or written by a path, or by any if it is -1.
  uint64_t unique_sectors(int path, bool read, bool written) const;

 private:
  struct Counters {
    uint64_t of[kCounters] = {};
  };
  // Sectors of a block that begins where one begins: allocations are aligned, on whatever host.
  using Touched = std::vector<std::vector<uint64_t>>;  // by block, a bit each

  uint64_t* counters(const Warp& w);
  void add_shared(Warp& w, const Access& a, Mask own, Mask remote, const Manner& manner);
  void add_global(Warp& w, const Access& a, Mask lanes, const Manner& manner);
  void touch(const Warp& w, const Block& block, uint64_t address, uint64_t bytes, bool writes);

  const Program& program_;
  std::vector<std::map<uint32_t, Counters>> by_warp_;  // by pc
  std::vector<Path> paths_;                            // of each instruction
  Touched touched_[kPaths][2];
  std::vector<uint64_t> sectors_;  // of the present request
};

}  // namespace ptx
