// Fences, programmatic dependent launch, and the register pool.
#include <algorithm>

#include "barriers.h"
#include "encoding.h"
#include "error.h"
#include "lanes.h"
#include "mbarrier.h"
#include "races.h"

namespace ptx {
namespace {

Flow fence(Warp& w, const Instr& in, Mask mask) {
  if (w.clock) w.machine->races->fence(w, mask, in.scope);
  return Flow::next;
}

Flow fence_proxy(Warp& w, const Instr&, Mask mask) {
  if (w.clock) w.machine->races->fence_proxy_async(w, mask);
  return Flow::next;
}

// Whatever else the thread did is taken to be fenced, too.
Flow fence_mbarrier_init(Warp& w, const Instr& in, Mask mask) {
  if (w.clock) fence_mbarrier_inits(w, mask);
  return fence(w, in, mask);
}

Flow nothing(Warp&, const Instr&, Mask) {
  return Flow::next;
}

void take_scope(Encoding& e) {
  const int scope = e.take_one_of({"cta", "cluster", "gpu", "sys"});
  if (scope < 0) e.fail("a scope is missing");
  e.out.scope = static_cast<Scope>(scope);
}

void encode_proxy(Encoding& e) {
  if (e.take("alias")) {
    e.expect_operands(0, 0);
    e.out.run = nothing;
  } else if (e.take("tensormap::generic")) {
    if (e.take_one_of({"acquire", "release"}) < 0) e.fail("an order is missing");
    take_scope(e);
    if (e.operands() > 0) e.address(0);
    e.expect_operands(0, 2);
    e.out.run = fence;
  } else if (e.take("async")) {
    e.take_one_of({"global", "shared::cta", "shared::cluster"});
    e.expect_operands(0, 0);
    e.out.run = fence_proxy;
  } else {
    e.fail("this proxy is not modelled");
  }
}

void encode_fence(Encoding& e) {
  if (e.take("proxy")) return encode_proxy(e);
  const bool of_mbarrier_init = e.take("mbarrier_init");
  if (e.take_one_of({"sc", "acq_rel", "acquire", "release"}, 1) > 1 &&
      e.take("sync_restrict::shared::cta"))
    e.fail("a restricted fence is not modelled");
  take_scope(e);
  e.expect_operands(0, 0);
  e.out.run = of_mbarrier_init ? fence_mbarrier_init : fence;
}

void membar(Encoding& e) {
  if (e.take("proxy")) return encode_proxy(e);
  const int level = e.take_one_of({"cta", "gl", "sys"});
  if (level < 0) e.fail("a level is missing");
  constexpr Scope kScopes[] = {Scope::cta, Scope::gpu, Scope::sys};
  e.out.scope = kScopes[level];
  e.expect_operands(0, 0);
  e.out.run = fence;
}

// The registers of a thread at the start, as ptxas divides an SM's 65536 among the CTAs it is told
// to allow for.
uint32_t registers_at_start(const Kernel& kernel, const Cta& cta) {
  const Function& f = *kernel.source;
  if (f.max_registers) return static_cast<uint32_t>(f.max_registers);
  uint32_t threads = static_cast<uint32_t>(f.max_threads);
  if (f.required_threads[0])
    threads = static_cast<uint32_t>(f.required_threads[0] * f.required_threads[1] *
                                    f.required_threads[2]);
  if (!threads) threads = cta.threads;
  const uint32_t ctas = static_cast<uint32_t>(std::max(f.min_ctas, 1));
  return std::min<uint32_t>(65536 / (ctas * threads) / 8 * 8, 255);
}

// imm: registers; small: inc
Flow set_registers(Warp& w, const Instr& in, Mask mask) {
  if (!w.gather(mask, w.alive)) return Flow::regroup;
  auto& pool = barriers_of(*w.cta);
  if (pool.registers.empty()) {
    const uint32_t each = registers_at_start(w.machine->kernel, *w.cta);
    pool.registers.assign(w.cta->warps.size(), each);
  }
  const auto wanted = static_cast<uint32_t>(in.imm);
  uint32_t& mine = pool.registers[w.index];
  if (in.small ? wanted < mine : wanted > mine)
    throw Fault(Fault::limit, std::string("setmaxnreg.") + (in.small ? "inc" : "dec") + " to " +
                                  std::to_string(wanted) + " from " + std::to_string(mine));
  if (in.small) {
    const uint64_t more = uint64_t{wanted - mine} * kLanes;
    if (more > pool.free_registers) return w.park(Wait::registers, mask, w.pc);
    pool.free_registers -= more;
  } else {
    pool.free_registers += uint64_t{mine - wanted} * kLanes;
    for (const auto& other : w.cta->warps) other->wake(Wait::registers, 0);
  }
  mine = wanted;
  return Flow::next;
}

void setmaxnreg(Encoding& e) {
  const int kind = e.take_one_of({"dec", "inc"});
  if (kind < 0 || !e.take("sync") || !e.take("aligned") || !e.take("u32"))
    e.fail("this form is not modelled");
  e.expect_operands(1, 1);
  const uint64_t registers = e.integer(0);
  if (registers < 24 || registers > 256 || registers % 8)
    e.fail("a multiple of 8 from 24 to 256 is expected");
  e.out.imm = static_cast<int64_t>(registers);
  e.out.small = static_cast<uint8_t>(kind);
  e.out.run = set_registers;
}

}  // namespace

void add_fence_opcodes(Opcodes& ops) {
  ops["fence"] = encode_fence;
  ops["membar"] = membar;
  ops["setmaxnreg"] = setmaxnreg;
  // A launch has no other before it to wait for.
  ops["griddepcontrol"] = [](Encoding& e) {
    if (e.take_one_of({"launch_dependents", "wait"}) < 0) e.fail("this form is not modelled");
    e.expect_operands(0, 0);
    e.out.run = nothing;
  };
}

}  // namespace ptx
