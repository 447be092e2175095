// Who accessed each 16 bytes of memory, and when.
#pragma once

#include <cstdint>
#include <vector>

#include "clocks.h"
#include "memory.h"

namespace ptx {

// How the lanes of an entry share its bytes.
enum class Sharing : uint8_t {
  each,    // every lane accessed all of the bytes
  spread,  // lanes in ascending order accessed equal parts in ascending order
  tile,    // as `each`; the time is the index of a TileRead, which has the true one
};

// Accesses by one warp instruction or one asynchronous operation.
struct Entry {
  uint32_t agent : kAgentBits;
  uint32_t strength : 3;  // 0: weak; else 1 + Scope
  Mask lanes;
  uint64_t time : 26;
  uint64_t bytes : 16;  // a bit each; 0: no entry
  uint64_t pc : 19;
  uint64_t write : 1;
  uint64_t sharing : 2;

  // The lanes that may have accessed one of these bytes.
  Mask lanes_of(uint32_t some_bytes) const;
  uint32_t bytes_of(Mask lane) const;
  // Forgets these bytes. Lanes that keep some of theirs go to `rest`, an entry each.
  void drop(uint32_t gone, std::vector<Entry>& rest);
};
static_assert(sizeof(Entry) == 16);

constexpr uint32_t kMostTime = (1u << 26) - 1, kMostPc = 1u << 19;

// The accesses to 16 bytes that a later one may race with.
struct alignas(64) Cell {
  Entry entries[3];
  uint32_t more;        // index of further entries, 0 if there are none
  uint8_t more_writes;  // whether some of those are writes
  uint8_t is_location;  // a strong write to it has published something
  uint8_t tile_reads;   // how many of the entries stand for a TileRead
};
static_assert(sizeof(Cell) == 64);

// The chunks of shared memory that are an operand of wgmma, or some warps' part of it.
struct Tile {
  uint64_t descriptor;
  size_t chunks;
  Mask lanes;
  bool mn_major;
  bool operator==(const Tile&) const = default;
};

// An agent's last read of a tile. While it is intact, each of the tile's cells holds an entry that
// stands for it, and no write but such as `writers` cover: nothing has gone there but other agents'
// reads of tiles. To read the tile again then is to judge the writers and to set the time.
struct TileRead {
  struct Writer {
    Agent agent;
    uint32_t time;  // of the last write
    Mask lanes;     // of all
  };
  static constexpr int kMostWriters = 8;
  Tile tile{};
  bool intact = true;
  uint32_t time = 0, pc = 0;
  uint32_t entries = 0;  // how many cells' entries stand for it
  int writer_count = 0;
  Writer writers[kMostWriters];
};

inline Cell* Block::cell(uint64_t address) const {
  return cells + ((address >> 4) - (begin >> 4));
}

}  // namespace ptx
