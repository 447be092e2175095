#include "access.h"

#include "machine.h"

namespace ptx {

std::string place_of(const Machine& machine, uint64_t address) {
  const auto inside = [=](uint64_t window) { return address - window < kWindowBytes; };
  if (inside(kSharedWindow)) return hex(address - kSharedWindow) + " in shared memory";
  if (inside(kLocalWindow)) return hex(address - kLocalWindow) + " in local memory";
  if (inside(kParamWindow))
    return "the kernel's parameters + " + std::to_string(address - kParamWindow);
  return machine.global.place_of(address);
}

void find_shape(Access& a) {
  const uint64_t first = a.at[__builtin_ctz(a.mask)];
  const uint64_t bytes = a.bytes;
  bool contiguous = true, uniform = true;
  if (a.mask == kAllLanes) {
    uint64_t off_stride = 0, off_first = 0;
    for (int l = 0; l < kLanes; ++l) {
      off_stride |= a.at[l] - first - l * bytes;
      off_first |= a.at[l] - first;
    }
    contiguous = off_stride == 0;
    uniform = off_first == 0;
  } else {
    uint64_t next = first;
    for_each_lane(a.mask, [&](int l) {
      contiguous &= a.at[l] == next;
      uniform &= a.at[l] == first;
      next += bytes;
    });
  }
  // A single lane is both.
  a.shape = contiguous ? Access::contiguous : uniform ? Access::uniform : Access::scattered;
}

void find_addresses(const Warp& w, const Instr& in, Mask mask, uint32_t bytes, Access& out) {
  out.mask = mask;
  out.bytes = bytes;
  const uint64_t window = in.space == Space::shared  ? kSharedWindow
                          : in.space == Space::local ? kLocalWindow
                          : in.space == Space::param ? kParamWindow
                                                     : 0;
  const uint64_t add = static_cast<uint64_t>(in.imm);
  if (in.a == kNoRef) {
    for (int l = 0; l < kLanes; ++l) out.at[l] = add + window;
  } else if (in.wide_address) {
    const uint64_t* a = w.in<uint64_t>(in.a);
    for (int l = 0; l < kLanes; ++l) out.at[l] = a[l] + add + window;
  } else {
    const uint32_t* a = w.in<uint32_t>(in.a);
    const uint32_t add32 = static_cast<uint32_t>(add);
    for (int l = 0; l < kLanes; ++l) out.at[l] = uint64_t{a[l] + add32} + window;
  }
  find_shape(out);
}

const Block& locate(Warp& w, uint64_t address, uint64_t bytes, int lane, const char* what) {
  const auto fail = [&](const std::string& why) {
    throw Fault(Fault::memory,
                std::string(what) + " of " + std::to_string(bytes) + " bytes at " +
                    place_of(*w.machine, address) + " " + why,
                lane);
  };
  const uint64_t in_shared = address - kSharedWindow;
  if (in_shared < kWindowBytes) {
    const Block& own = w.cta->shared;
    if (own.holds(address, bytes)) return own;
    const auto& ctas = w.cta->cluster->ctas;
    const uint64_t rank = in_shared >> kRankShift;
    if (rank >= ctas.size())
      fail("of rank " + std::to_string(rank) + " in a cluster of " + std::to_string(ctas.size()));
    const Cta& cta = *ctas[rank];
    if (!cta.shared.holds(address, bytes))
      fail("outside the CTA's shared memory, " + hex(cta.shared.begin - kSharedWindow) + " to " +
           hex(cta.shared.end - kSharedWindow));
    if (cta.running == 0) fail("of a CTA of the cluster that has exited");
    return cta.shared;
  }
  if (w.last_block && w.last_block->holds(address, bytes)) return *w.last_block;
  const Block* block = w.machine->global.find(address);
  if (!block && address >= kParamWindow && w.machine->param_block.holds(address, bytes))
    return w.machine->param_block;
  if (!block) fail("outside all memory that the kernel was given");
  if (!block->holds(address, bytes)) fail("past the end of " + block->name);
  w.last_block = block;
  return *block;
}

std::string misaligned(const Warp& w, uint64_t address, uint64_t align) {
  return place_of(*w.machine, address) + " is no multiple of " + std::to_string(align) +
         " (remainder " + std::to_string(address % align) + ")";
}

void check_alignment(const Warp& w, const Access& a, uint32_t align) {
  uint64_t bits = 0;
  if (a.mask == kAllLanes) {
    for (int l = 0; l < kLanes; ++l) bits |= a.at[l];
  } else {
    for_each_lane(a.mask, [&](int l) { bits |= a.at[l]; });
  }
  if ((bits & (align - 1)) == 0) return;
  for_each_lane(a.mask, [&](int l) {
    if (a.at[l] & (align - 1)) throw Fault(Fault::memory, misaligned(w, a.at[l], align), l);
  });
}

void never_written(Warp& w, uint64_t address, uint64_t bytes, int lane) {
  uint64_t missing = 0;
  if (address < kLocalWindow) {
    const Block& block = locate(w, address, bytes, lane, "a read");
    while (missing < bytes && block.all_written(address + missing, 1)) ++missing;
  }
  const Fault fault(Fault::memory,
                    "a read of " + std::to_string(bytes) + " bytes at " +
                        place_of(*w.machine, address) +
                        (missing ? ", of which nobody has written byte " + std::to_string(missing)
                                 : " that nobody has written"),
                    lane);
  if (!w.machine->races) throw fault;
  w.machine->report_later(w, fault);
}

void check_written(Warp& w, const Block& block, const Access& a) {
  const int first = __builtin_ctz(a.mask);
  if (a.shape == Access::contiguous &&
      block.all_written(a.at[first], uint64_t{a.bytes} * __builtin_popcount(a.mask)))
    return;
  if (a.shape == Access::uniform && block.all_written(a.at[first], a.bytes)) return;
  for_each_lane(a.mask, [&](int l) {
    if (!block.all_written(a.at[l], a.bytes)) never_written(w, a.at[l], a.bytes, l);
  });
}

void set_written(const Block& block, const Access& a) {
  const int first = __builtin_ctz(a.mask);
  if (a.shape == Access::contiguous)
    return block.set_written(a.at[first], uint64_t{a.bytes} * __builtin_popcount(a.mask));
  for_each_lane(a.mask, [&](int l) { block.set_written(a.at[l], a.bytes); });
}

uint8_t* local_bytes(Warp& w, int lane, uint64_t offset, uint64_t bytes, bool writes) {
  const uint64_t size = w.machine->kernel.local_bytes;
  if (offset > size || bytes > size - offset)
    throw Fault(Fault::memory,
                "an access of " + std::to_string(bytes) + " bytes at " +
                    place_of(*w.machine, offset + kLocalWindow) + ", which has " +
                    std::to_string(size),
                lane);
  uint8_t* local = w.local.data() + lane * size + offset;
  uint8_t* written = w.local_written.data() + lane * size + offset;
  for (uint64_t i = 0; i < bytes; ++i) {
    if (writes) written[i] = 1;
    if (!written[i]) {
      never_written(w, offset + kLocalWindow, bytes, lane);
      break;
    }
  }
  return local;
}

}  // namespace ptx
