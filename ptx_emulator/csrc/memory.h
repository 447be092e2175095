// Device memory: blocks of bytes with what is known of them. Global addresses are the host's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "address.h"

namespace ptx {

struct Cell;
struct Warp;

constexpr uint32_t kSharedStart = 0x400;  // offset of a CTA's first byte of shared memory

struct Block {
  uint64_t begin = 0, end = 0;  // generic addresses
  uint8_t* data = nullptr;
  uint64_t* written = nullptr;  // a bit per byte; null: all bytes count as written
  Cell* cells = nullptr;        // one per 16 bytes; null if races are not looked for
  bool read_only = false;
  std::string name;

  bool holds(uint64_t address, uint64_t bytes) const {
    return address >= begin && bytes <= end - begin && address - begin <= end - begin - bytes;
  }
  uint8_t* at(uint64_t address) const { return data + (address - begin); }
  Cell* cell(uint64_t address) const;  // inline, in shadow.h
  bool all_written(uint64_t address, uint64_t bytes) const;
  void set_written(uint64_t address, uint64_t bytes) const;
};

// Zeroed pages that exist only once they are touched.
class Pages {
 public:
  Pages() = default;
  explicit Pages(uint64_t bytes);
  ~Pages();
  Pages(Pages&& other) noexcept;
  Pages& operator=(Pages&& other) noexcept;
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  uint64_t bytes_ = 0;
};

// The global memory that a launch may touch.
class GlobalMemory {
 public:
  // Blocks that overlap become one. `bits` says, and is told, which bytes are written; such a block
  // must not overlap another.
  void add(uint64_t begin, uint64_t bytes, std::string name, bool read_only, bool written,
           uint64_t* bits = nullptr);
  void finish(bool races);
  const Block* find(uint64_t address) const;
  // Relative to a block: its name and an offset, or the number if no block is near.
  std::string place_of(uint64_t address) const;
  const std::vector<Block>& blocks() const { return blocks_; }

 private:
  struct Added {
    Block block;
    bool written;
  };
  std::vector<Added> added_;
  std::vector<Block> blocks_;
  std::vector<bool> written_;
  std::vector<Pages> pages_;
};

}  // namespace ptx
