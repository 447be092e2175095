#include "profile.h"

#include <algorithm>
#include <bit>

#include "access.h"
#include "machine.h"
#include "wavefronts.h"

namespace ptx {
namespace {

Path path_of(std::string_view opcode) {
  if (opcode.starts_with("cp.async.bulk") || opcode.starts_with("cp.reduce")) return Path::bulk;
  if (opcode.starts_with("cp.async")) return Path::copy;
  if (opcode.starts_with("atom") || opcode.starts_with("red.")) return Path::atomic;
  return Path::direct;
}

bool is_global(const Block& block) {
  return block.begin < kSharedWindow;
}
bool is_shared(const Block& block) {
  return block.begin - kSharedWindow < kWindowBytes;
}

template <class F>
void for_each_sector(uint64_t offset, uint64_t bytes, F f) {
  for (uint64_t s = offset / kSectorBytes; s <= (offset + bytes - 1) / kSectorBytes; ++s) f(s);
}

}  // namespace

void note_access(Warp& w, const Access& a, const Manner& manner) {
  w.profile->access(w, a, manner);
}

Profile::Profile(const Program& program, size_t warps) : program_(program), by_warp_(warps) {
  for (const InstrInfo& info : program.info) paths_.push_back(path_of(info.opcode));
}

uint64_t* Profile::counters(const Warp& w) {
  return by_warp_[w.index][w.pc].of;
}

void Profile::access(Warp& w, const Access& a, const Manner& manner) {
  const Space space = program_.code[w.pc].space;
  // Parameters and constants come from a cache of their own.
  if (space == Space::param || space == Space::constant) return;
  Mask own = 0, remote = 0, global = 0;
  for_each_lane(a.mask, [&](int l) {
    const uint64_t at = a.at[l];
    const Mask lane = Mask{1} << l;
    if (at < kSharedWindow)
      global |= lane;
    else if (at < kLocalWindow)
      (w.cta->shared.holds(at, a.bytes) ? own : remote) |= lane;
    else if (at < kParamWindow)
      counters(w)[kLocal] += a.bytes;
  });
  if (own | remote) add_shared(w, a, own, remote, manner);
  if (global) add_global(w, a, global, manner);
}

void Profile::add_shared(Warp& w, const Access& a, Mask own, Mask remote, const Manner& manner) {
  uint64_t* c = counters(w);
  const uint64_t bytes = uint64_t{a.bytes} * std::popcount(own);
  const uint64_t remote_bytes = uint64_t{a.bytes} * std::popcount(remote);
  if (manner.reads) {
    c[kSharedRead] += bytes;
    c[kRemoteRead] += remote_bytes;
  }
  if (manner.writes) {
    c[kSharedWritten] += bytes;
    c[kRemoteWritten] += remote_bytes;
  }
  if (!own) return;
  const Wavefronts passes = wavefronts(a.at, own, a.bytes, manner.reads && manner.writes);
  c[kWavefronts] += passes.needed;
  c[kIdealWavefronts] += passes.ideal;
}

void Profile::add_global(Warp& w, const Access& a, Mask lanes, const Manner& manner) {
  uint64_t* c = counters(w);
  const uint64_t bytes = uint64_t{a.bytes} * std::popcount(lanes);
  // red returns nothing.
  const bool reads = manner.reads && !program_.info[w.pc].opcode.starts_with("red");
  ++c[kGlobalRequests];
  if (reads) c[kGlobalRead] += bytes;
  if (manner.writes) c[kGlobalWritten] += bytes;
  while (lanes) {
    const Block* block = w.machine->global.find(a.at[std::countr_zero(lanes)]);
    if (!block) return;  // the access is about to fail
    sectors_.clear();
    for_each_lane(lanes, [&](int l) {
      if (!block->holds(a.at[l], a.bytes)) return;
      lanes &= ~(Mask{1} << l);
      if (reads) touch(w, *block, a.at[l], a.bytes, false);
      if (manner.writes) touch(w, *block, a.at[l], a.bytes, true);
      const uint64_t offset = a.at[l] - block->begin;
      for_each_sector(offset, a.bytes, [&](uint64_t s) { sectors_.push_back(s); });
    });
    if (sectors_.empty()) return;
    std::sort(sectors_.begin(), sectors_.end());
    c[kSectors] += std::unique(sectors_.begin(), sectors_.end()) - sectors_.begin();
  }
}

void Profile::touch(const Warp& w, const Block& block, uint64_t address, uint64_t bytes,
                    bool writes) {
  const auto& blocks = w.machine->global.blocks();
  Touched& touched = touched_[static_cast<int>(paths_[w.pc])][writes];
  touched.resize(blocks.size());
  auto& bits = touched[&block - blocks.data()];
  bits.resize((block.end - block.begin + kSectorBytes * 64 - 1) / (kSectorBytes * 64));
  for_each_sector(address - block.begin, bytes,
                  [&](uint64_t s) { bits[s / 64] |= uint64_t{1} << s % 64; });
}

void Profile::copy(Warp& w, const Moved& moved) {
  uint64_t* c = counters(w);
  const Block* const own = &w.cta->shared;
  std::vector<std::pair<const Block*, uint64_t>> sectors;
  const auto add_global = [&](const Block& block, uint64_t address, uint32_t bytes, bool writes) {
    c[writes ? kGlobalWritten : kGlobalRead] += bytes;
    touch(w, block, address, bytes, writes);
    for_each_sector(address - block.begin, bytes,
                    [&](uint64_t s) { sectors.push_back({&block, s}); });
  };
  for (const MovedBytes& p : moved.parts) {
    const bool from_shared = p.source && is_shared(*p.source);
    if (from_shared)
      c[p.source == own ? kSharedRead : kRemoteRead] += p.bytes;
    else if (p.source && is_global(*p.source) && !moved.again)
      add_global(*p.source, p.from, p.bytes, false);
    if (!p.target) continue;
    if (is_global(*p.target))
      add_global(*p.target, p.to, p.bytes, true);
    else  // what comes from global memory goes to any CTA without passing through this one
      c[p.target != own && (from_shared || moved.from_registers) ? kRemoteWritten
                                                                 : kSharedWritten] += p.bytes;
  }
  std::sort(sectors.begin(), sectors.end());
  const auto end = std::unique(sectors.begin(), sectors.end());
  c[kGlobalRequests] += !sectors.empty();
  c[kSectors] += end - sectors.begin();
}

void Profile::read_operands(Warp& w, uint32_t bytes) {
  counters(w)[kSharedRead] += bytes;
}

std::vector<uint64_t> Profile::rows(size_t warp) const {
  std::vector<uint64_t> out;
  for (const auto& [pc, counters] : by_warp_[warp]) {
    out.push_back(pc);
    out.insert(out.end(), counters.of, counters.of + kCounters);
  }
  return out;
}

uint64_t Profile::unique_sectors(int path, bool read, bool written) const {
  std::vector<std::vector<uint64_t>> all;
  for (int p = 0; p < kPaths; ++p)
    for (bool writes : {false, true}) {
      if ((path >= 0 && p != path) || !(writes ? written : read)) continue;
      const Touched& touched = touched_[p][writes];
      all.resize(std::max(all.size(), touched.size()));
      for (size_t b = 0; b < touched.size(); ++b) {
        all[b].resize(std::max(all[b].size(), touched[b].size()));
        for (size_t i = 0; i < touched[b].size(); ++i) all[b][i] |= touched[b][i];
      }
    }
  uint64_t count = 0;
  for (const auto& bits : all)
    for (uint64_t word : bits) count += std::popcount(word);
  return count;
}

}  // namespace ptx
