#include "mbarrier.h"

#include <cstring>

#include "engines.h"
#include "races.h"

namespace ptx {
namespace {

void store_image(Warp& w, const Mbarrier& b) {
  const uint64_t image = b.image();
  std::memcpy(owner_of(w, b.address).shared.at(b.address), &image, sizeof(image));
}

// The waits of those that are parked are over, whatever becomes of the barrier until they run.
void complete_waits(Mbarrier& b) {
  const auto waiters = std::move(b.waiters);
  b.waiters.clear();
  for (Warp* waiter : waiters) {
    for (const Group& g : waiter->groups) {
      if (g.wait != Wait::async || g.key != b.address) continue;
      const Instr& in = waiter->machine->program.code[g.at];
      if (in.order == Order::acquire) observe(*waiter, b, g.lanes);
      write_pred(waiter->pred(in.d), g.lanes, g.lanes);
    }
    waiter->wake(Wait::async, b.address);
  }
}

void finish_update(Warp& w, Mbarrier& b) {
  if (b.pending == 0 && b.tx == 0) {
    ++b.phase;
    b.released.join(b.arriving);
    b.arriving.clear(b.arriving.cluster());
    b.pending = b.expected;
    w.machine->progress();
    complete_waits(b);
  }
  store_image(w, b);
}

void check_address(Warp& w, uint64_t address, int lane) {
  if (address % 8) throw Fault(Fault::memory, "an mbarrier: " + misaligned(w, address, 8), lane);
  if (address - kSharedWindow >= kWindowBytes)
    throw Fault(Fault::memory,
                "an mbarrier at " + place_of(*w.machine, address) + ", outside shared memory",
                lane);
  locate(w, address, 8, lane, "an mbarrier operation");
}

uint32_t offset_of(uint64_t address) {
  return static_cast<uint32_t>(address & kSharedOffsetMask);
}

}  // namespace

// No two states that follow each other have the same image.
uint64_t Mbarrier::image() const {
  return uint64_t{0xb} << 60 | (phase & 0x3fff) << 46 |
         (static_cast<uint64_t>(tx) & 0x3ffffff) << 20 | static_cast<uint64_t>(pending);
}

std::string Mbarrier::describe() const {
  return "the mbarrier at " + hex(address - kSharedWindow) + " (phase " + std::to_string(phase) +
         ", " + std::to_string(pending) + " of " + std::to_string(expected) + " arrivals and " +
         std::to_string(tx) + " bytes to come)";
}

Mbarrier& mbarrier_at(Warp& w, uint64_t address, int lane) {
  check_address(w, address, lane);
  Cta& cta = owner_of(w, address);
  auto& all = engines_of(cta).mbarriers;
  const auto it = all.find(offset_of(address));
  if (it == all.end())
    throw Fault(Fault::memory,
                "no mbarrier has been initialised at " + place_of(*w.machine, address), lane);
  uint64_t word;
  std::memcpy(&word, cta.shared.at(address), sizeof(word));
  if (word != it->second.image())
    throw Fault(Fault::memory, it->second.describe() + " has been overwritten", lane);
  return it->second;
}

Mbarrier& use_mbarrier(Warp& w, uint64_t address, int lane) {
  Mbarrier& b = mbarrier_at(w, address, lane);
  if (w.clock && !w.machine->races->knows(w, lane, b.initialised))
    throw Fault(Fault::race,
                "nothing orders this use of " + b.describe() + " behind its initialisation", lane);
  return b;
}

void check_remote_copy(Warp& w, const Mbarrier& b, const Published& view, int lane) {
  const Published& init = b.initialised;
  if (b.init_fenced || view.known->covers(init.agent, init.time, init.lanes, kProxied)) return;
  throw Fault(Fault::race,
              "a copy that completes at " + b.describe() +
                  " of another CTA: no fence.mbarrier_init or fence.proxy.async has made its "
                  "initialisation visible to copies",
              lane);
}

void fence_mbarrier_inits(Warp& w, Mask mask) {
  for (auto& [offset, b] : engines_of(*w.cta).mbarriers) {
    const Published& init = b.initialised;
    if (init.agent == w.clock->agent && (init.lanes & mask)) b.init_fenced = true;
  }
}

void init_mbarrier(Warp& w, uint64_t address, uint32_t count, int lane) {
  check_address(w, address, lane);
  if (count < 1 || count > Mbarrier::kMostCount)
    throw Fault(Fault::memory,
                "an mbarrier's count must be in 1 .. 2^20 - 1, not " + std::to_string(count), lane);
  Cta& cta = owner_of(w, address);
  auto& all = engines_of(cta).mbarriers;
  const auto it = all.find(offset_of(address));
  if (it != all.end()) {
    uint64_t word;
    std::memcpy(&word, cta.shared.at(address), sizeof(word));
    if (word == it->second.image())
      throw Fault(Fault::memory,
                  it->second.describe() + " is initialised again, without mbarrier.inval", lane);
  }
  Mbarrier b;
  b.address = address;
  b.expected = b.pending = count;
  if (w.clock) {
    Races& races = *w.machine->races;
    const auto cluster = static_cast<uint32_t>(cta.cluster->index);
    b.arriving.clear(cluster);
    b.released.clear(cluster);
    // An object that takes another's place goes on with its agent.
    auto& agents = engines_of(cta).mbarrier_agents;
    const auto [known, fresh] = agents.try_emplace(offset_of(address));
    if (fresh)
      known->second.agent = races.new_agent(
          cta, "a copy to the mbarrier at " + hex(address - kSharedWindow), Proxy::async);
    b.agent = known->second.agent;
    b.store_agent = known->second.store_agent;
    b.first_time = known->second.time;
    b.initialised = races.publish(w, Mask{1} << lane);
  }
  all[offset_of(address)] = b;
  store_image(w, b);
  cta.shared.set_written(address, 8);
}

void invalidate_mbarrier(Warp& w, uint64_t address, int lane) {
  const Mbarrier& b = mbarrier_at(w, address, lane);
  if (!b.waiters.empty())
    throw Fault(Fault::memory, b.describe() + " is invalidated while threads wait for it", lane);
  Cta& cta = owner_of(w, address);
  if (w.clock) {
    auto& known = engines_of(cta).mbarrier_agents[offset_of(address)];
    known.time = b.time();
    known.store_agent = b.store_agent;
  }
  engines_of(cta).mbarriers.erase(offset_of(address));
  std::memset(cta.shared.at(address), 0xff, 8);
}

void publish(Warp& w, Mbarrier& b, int lane) {
  if (w.clock) w.machine->races->publish(w, Mask{1} << lane, b.arriving);
}

void observe(Warp& w, const Mbarrier& b, Mask lanes) {
  if (!w.clock || !lanes) return;
  w.machine->races->observe(w, lanes, b.released);
  w.machine->races->observe(w, lanes, b.agent, b.time() - 1);
  if (b.store_agent) w.machine->races->observe(w, lanes, b.store_agent, b.time() - 1);
}

void expect_tx(Warp& w, Mbarrier& b, int64_t bytes, int lane) {
  b.tx += bytes;
  if (b.tx > Mbarrier::kMostCount || b.tx < -Mbarrier::kMostCount)
    throw Fault(Fault::memory, b.describe() + " counts at most 2^20 - 1 bytes", lane);
  finish_update(w, b);
}

void complete_tx(Warp& w, Mbarrier& b, int64_t bytes, int lane) {
  expect_tx(w, b, -bytes, lane);
}

void arrive(Warp& w, Mbarrier& b, int64_t count, int lane) {
  if (count > b.pending)
    throw Fault(
        Fault::race,
        b.describe() + " gets " + std::to_string(count) + " arrivals more than it waits for", lane);
  b.pending -= count;
  finish_update(w, b);
}

void add_pending(Warp& w, Mbarrier& b, int64_t count, int lane) {
  b.pending += count;
  if (b.pending > Mbarrier::kMostCount)
    throw Fault(Fault::memory, b.describe() + " counts at most 2^20 - 1 arrivals", lane);
  store_image(w, b);
}

void drop(Warp& w, Mbarrier& b, int64_t count, int lane) {
  if (count > b.expected)
    throw Fault(Fault::race, b.describe() + " is dropped by more than take part", lane);
  b.expected -= count;
  arrive(w, b, count, lane);
}

}  // namespace ptx
