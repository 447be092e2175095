#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "error.h"
#include "shadow.h"

namespace ptx {

std::string hex(uint64_t n) {
  char text[17];
  const auto end = std::to_chars(text, text + 16, n, 16).ptr;
  return "0x" + std::string(text, end);
}

bool Block::all_written(uint64_t address, uint64_t bytes) const {
  if (!written) return true;
  uint64_t bit = address - begin;
  while (bytes > 0) {
    const uint64_t shift = bit % 64, here = std::min<uint64_t>(64 - shift, bytes);
    const uint64_t mask = (here == 64 ? ~uint64_t{0} : (uint64_t{1} << here) - 1) << shift;
    if ((written[bit / 64] & mask) != mask) return false;
    bit += here;
    bytes -= here;
  }
  return true;
}

void Block::set_written(uint64_t address, uint64_t bytes) const {
  if (!written) return;
  uint64_t bit = address - begin;
  while (bytes > 0) {
    const uint64_t shift = bit % 64, here = std::min<uint64_t>(64 - shift, bytes);
    written[bit / 64] |= (here == 64 ? ~uint64_t{0} : (uint64_t{1} << here) - 1) << shift;
    bit += here;
    bytes -= here;
  }
}

Pages::Pages(uint64_t bytes) : bytes_(bytes) {
  if (!bytes) return;
  data_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
               -1, 0);
  if (data_ == MAP_FAILED) {
    data_ = nullptr;
    throw Fault(Fault::limit, "no memory for " + std::to_string(bytes) + " bytes of records");
  }
  // Fewer faults at first touches.
  madvise(data_, bytes, MADV_HUGEPAGE);
}
Pages::~Pages() {
  if (data_) munmap(data_, bytes_);
}
Pages::Pages(Pages&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
Pages& Pages::operator=(Pages&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void GlobalMemory::add(uint64_t begin, uint64_t bytes, std::string name, bool read_only,
                       bool written, uint64_t* bits) {
  if (!bytes) return;
  Block block;
  block.begin = begin;
  block.end = begin + bytes;
  block.data = reinterpret_cast<uint8_t*>(begin);
  block.name = std::move(name);
  block.read_only = read_only;
  block.written = bits;
  added_.push_back({std::move(block), written});
}

void GlobalMemory::finish(bool races) {
  std::stable_sort(added_.begin(), added_.end(),
                   [](const auto& a, const auto& b) { return a.block.begin < b.block.begin; });
  for (Added& a : added_) {
    if (!blocks_.empty() && a.block.begin < blocks_.back().end) {
      Block& last = blocks_.back();
      if (last.written || a.block.written)
        throw Error("memory whose written bytes are kept track of overlaps: " + last.name +
                    " and " + a.block.name);
      last.end = std::max(last.end, a.block.end);
      if (last.name.find(a.block.name) == std::string::npos) last.name += " and " + a.block.name;
      last.read_only = last.read_only && a.block.read_only;
      written_.back() = written_.back() || a.written;
    } else {
      blocks_.push_back(std::move(a.block));
      written_.push_back(a.written);
    }
  }
  for (size_t i = 0; i < blocks_.size(); ++i) {
    Block& b = blocks_[i];
    if (!written_[i] && !b.written) {
      pages_.emplace_back((b.end - b.begin + 63) / 64 * 8);
      b.written = static_cast<uint64_t*>(pages_.back().data());
    }
    if (races && !b.read_only) {
      pages_.emplace_back(((b.end + 15) / 16 - b.begin / 16) * sizeof(Cell));
      b.cells = static_cast<Cell*>(pages_.back().data());
    }
  }
}

const Block* GlobalMemory::find(uint64_t address) const {
  auto it = std::upper_bound(blocks_.begin(), blocks_.end(), address,
                             [](uint64_t a, const Block& b) { return a < b.begin; });
  if (it == blocks_.begin()) return nullptr;
  --it;
  return address < it->end ? &*it : nullptr;
}

std::string GlobalMemory::place_of(uint64_t address) const {
  constexpr uint64_t kNear = 1 << 20;
  const Block* nearest = nullptr;
  uint64_t least = kNear;
  for (const Block& b : blocks_) {
    const uint64_t away = address < b.begin ? b.begin - address
                          : address < b.end ? 0
                                            : address - b.end + 1;
    if (away >= least) continue;
    least = away;
    nearest = &b;
  }
  if (!nearest) return hex(address);
  return nearest->name + (address < nearest->begin
                              ? " - " + std::to_string(nearest->begin - address)
                              : " + " + std::to_string(address - nearest->begin));
}

}  // namespace ptx
