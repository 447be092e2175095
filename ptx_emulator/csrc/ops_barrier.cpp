#include <bit>

#include "barriers.h"
#include "encoding.h"
#include "engines.h"
#include "error.h"
#include "lanes.h"
#include "races.h"

namespace ptx {
namespace {

uint32_t cluster_index(const Cta& cta) {
  return static_cast<uint32_t>(cta.cluster->index);
}

bool complete(const Cta& cta, const Barrier& b) {
  if (b.count) return b.arrived >= b.count;
  for (const auto& w : cta.warps)
    if (w->alive && !b.came[w->index]) return false;
  return true;
}

enum Reduction : uint8_t { kNone, kPopc, kAnd, kOr };

void finish(Cta& cta, Barrier& b, uint32_t index) {
  auto& all = barriers_of(cta);
  const auto waiters = std::move(b.waiters);
  for (const Barrier::Waiter& waiter : waiters) {
    Warp& w = *waiter.warp;
    if (w.clock) {
      w.machine->races->observe(w, waiter.lanes, b.known);
      if (!b.count) w.machine->races->observe(w, waiter.lanes, all.exited);
    }
    const Instr& in = *waiter.instr;
    switch (in.small) {
      case kPopc:
        write_lanes(w.out<uint32_t>(in.d), waiter.lanes, [&](int) { return b.yes; });
        break;
      case kAnd: write_pred(w.pred(in.d), waiter.lanes, b.yes == b.votes ? kAllLanes : 0); break;
      case kOr: write_pred(w.pred(in.d), waiter.lanes, b.yes ? kAllLanes : 0); break;
      default: break;
    }
  }
  all.last_users[index] = b.count ? std::move(b.users) : std::vector<Published>{};
  b = Barrier{};
  for (const Barrier::Waiter& waiter : waiters) waiter.warp->wake(Wait::cta_barrier, index);
}

// Warps that did not take part the last time must be ordered behind it: had they come earlier, they
// would have been counted with those that did.
void check_users(Warp& w, uint32_t index, Mask lanes) {
  const auto& last = barriers_of(*w.cta).last_users[index];
  for (const Published& user : last)
    if (user.agent == w.clock->agent) return;
  const int lane = __builtin_ctz(lanes);
  for (const Published& user : last)
    if (!w.machine->races->knows(w, lane, user))
      throw Fault(Fault::race,
                  "nothing orders this use of barrier " + std::to_string(index) +
                      " behind the last one, by other warps, with which it may be mixed up",
                  lane);
}

void check_cluster(Cluster& cluster, ClusterBarrier& b) {
  size_t i = 0;
  bool any = false;
  for (const auto& cta : cluster.ctas)
    for (const auto& w : cta->warps) {
      if (w->alive & ~b.warps[i].arrived) return;
      any |= b.warps[i++].arrived != 0;
    }
  if (!any) return;
  for (auto& w : b.warps) w.arrived = 0;
  std::swap(b.known, b.gathering);
  b.gathering.clear(b.known.cluster());
  for (const auto& cta : cluster.ctas)
    for (const auto& w : cta->warps) w->wake(Wait::cluster_barrier, 0);
}

Flow arrive_at_cluster(Warp& w, const Instr& in, Mask mask) {
  if (in.extra && !w.gather(mask, w.alive)) return Flow::regroup;
  auto& b = barrier_of(*w.cta->cluster);
  auto& mine = b.warps[w.cta->rank * w.cta->warps.size() + w.index];
  if (mine.pending & mask)
    throw Fault(Fault::trap, "a second barrier.cluster.arrive without a wait",
                __builtin_ctz(mine.pending & mask));
  mine.pending |= mask;
  mine.arrived |= mask;
  if (w.clock && in.order == Order::relaxed)
    w.machine->races->publish_flushed(w, mask, Scope::cluster, b.gathering);
  else if (w.clock)
    w.machine->races->publish(w, mask, b.gathering);
  w.machine->progress();
  check_cluster(*w.cta->cluster, b);
  return Flow::next;
}

Flow wait_for_cluster(Warp& w, const Instr& in, Mask mask) {
  if (in.extra && !w.gather(mask, w.alive)) return Flow::regroup;
  auto& b = barrier_of(*w.cta->cluster);
  auto& mine = b.warps[w.cta->rank * w.cta->warps.size() + w.index];
  if (mask & ~mine.pending)
    throw Fault(Fault::trap, "barrier.cluster.wait without an arrive",
                __builtin_ctz(mask & ~mine.pending));
  if (mine.arrived & mask) return w.park(Wait::cluster_barrier, mask, w.pc);
  mine.pending &= ~mask;
  if (w.clock) w.machine->races->observe(w, mask, b.known);
  return Flow::next;
}

// a: index; b: count or kNoRef; c: the predicate of .red; small: Reduction; extra bit 0: aligned,
// bit 1: arrive only, bit 2: the predicate is negated
Flow cta_barrier(Warp& w, const Instr& in, Mask mask) {
  if ((in.extra & 1) && !w.gather(mask, w.alive)) return Flow::regroup;
  const bool waits = !(in.extra & 2);
  Mask yes = 0;
  if (in.small) {
    yes = *w.in<Mask>(in.c);
    if (in.extra & 4) yes = ~yes;
    yes &= mask;
  }
  const uint32_t* index = w.in<uint32_t>(in.a);
  const uint32_t* count = in.b != kNoRef ? w.in<uint32_t>(in.b) : nullptr;
  const int first = __builtin_ctz(mask);
  for_each_lane(mask, [&](int l) {
    if (index[l] != index[first] || (count && count[l] != count[first]))
      throw Fault(Fault::unsupported, "lanes at different barriers in one instruction", l);
  });
  const uint32_t which = index[first];
  if (which >= 16) throw Fault(Fault::trap, "barrier " + std::to_string(which), first);
  const uint32_t threads = count ? count[first] : 0;
  if (count && (threads == 0 || threads % kLanes))
    throw Fault(Fault::trap,
                "a barrier of " + std::to_string(threads) + " threads: a multiple of 32 is needed");
  // It would stand in for a warp that has not come, which is then not waited for.
  const Barrier& barrier = barriers_of(*w.cta).barriers[which];
  if (!waits && barrier.in_use && barrier.came[w.index])
    throw Fault(Fault::race,
                "a second arrival of the warp at barrier " + std::to_string(which) +
                    ", where others have not come to the first yet",
                first);
  if (waits) {
    barriers_of(*w.cta).barriers[which].waiters.push_back({&w, mask, &in});
    w.park(Wait::cta_barrier, mask, w.pc + 1, 0, which);
  }
  arrive(w, which, threads, mask, in.small != 0, yes);
  return waits ? Flow::regroup : Flow::next;
}

void encode_barrier(Encoding& e) {
  const bool short_form = e.opcode() == "bar";  // whose forms are all aligned
  e.take("cta");
  const int kind = e.take_one_of({"sync", "red", "arrive"});
  if (kind < 0) e.fail("this form is not modelled");
  const bool aligned = e.take("aligned") || short_form;
  int next = 0;
  if (kind == 1) {
    e.out.small = static_cast<uint8_t>(1 + e.take_one_of({"popc", "and", "or"}));
    const Type type = e.take_type();
    bool negated = false;
    if (e.out.small == kNone) e.fail("an operation is missing");
    if ((type == Type::pred) != (e.out.small != kPopc)) e.fail("wrong type");
    if (type == Type::pred) {
      e.out.d = e.predicate(0, negated);
    } else {
      e.out.d = e.destination(0, type);
    }
    const Operand& p = e.operand(e.operands() - 1);
    e.out.c = e.predicate_source(p, negated);
    if (negated) e.out.extra |= 4;
    next = 1;
  }
  const int left = e.operands() - next - (kind == 1);
  if (left < (kind == 2 ? 2 : 1) || left > 2) e.fail("wrong number of operands");
  e.out.a = e.source(next, Type::b32);
  if (left == 2) e.out.b = e.source(next + 1, Type::b32);
  e.out.extra |= aligned | (kind == 2) << 1;
  e.out.run = cta_barrier;
}

void encode_cluster(Encoding& e) {
  e.take("cluster");
  const int kind = e.take_one_of({"arrive", "wait"});
  if (kind < 0) e.fail("arrive or wait is expected");
  const int order = e.take_one_of({"acquire", "release", "relaxed"});
  if (order == (kind == 0 ? 0 : 1) || (kind == 1 && order == 2)) e.fail("wrong order");
  e.out.order = order == 2 ? Order::relaxed : Order::acq_rel;
  e.out.extra = e.take("aligned");
  e.expect_operands(0, 0);
  e.out.run = kind == 0 ? arrive_at_cluster : wait_for_cluster;
}

}  // namespace

const Program& program_of(const Warp& w) {
  return w.machine->program;
}

CtaBarriers& barriers_of(Cta& cta) {
  if (!cta.barriers) {
    auto b = std::make_unique<CtaBarriers>();
    b->exited.clear(cluster_index(cta));
    cta.barriers = std::move(b);
  }
  return static_cast<CtaBarriers&>(*cta.barriers);
}

ClusterBarrier& barrier_of(Cluster& cluster) {
  if (!cluster.barrier) {
    auto b = std::make_unique<ClusterBarrier>();
    b->warps.resize(cluster.ctas.size() * cluster.ctas[0]->warps.size());
    b->gathering.clear(static_cast<uint32_t>(cluster.index));
    b->known.clear(static_cast<uint32_t>(cluster.index));
    cluster.barrier = std::move(b);
  }
  return static_cast<ClusterBarrier&>(*cluster.barrier);
}

void arrive(Warp& w, uint32_t index, uint32_t count, Mask lanes, bool votes, Mask yes) {
  Cta& cta = *w.cta;
  Barrier& b = barriers_of(cta).barriers[index];
  if (count == cta.warps.size() * kLanes) count = 0;
  if (!b.in_use) {
    b.in_use = true;
    b.count = count;
    b.came.assign(cta.warps.size(), false);
    b.partly.assign(cta.warps.size(), 0);
    b.known.clear(cluster_index(cta));
  }
  if (b.count != count) {
    const auto text = [](uint32_t n) { return n ? std::to_string(n) : std::string("all"); };
    throw Fault(Fault::trap, "barrier " + std::to_string(index) + " is used for " + text(count) +
                                 " threads while others wait for " + text(b.count));
  }
  // A warp counts as 32 threads, however many of them there are.
  const uint32_t before = static_cast<uint32_t>(std::popcount(b.partly[w.index]));
  b.partly[w.index] |= lanes;
  if ((w.alive & ~b.partly[w.index]) == 0) {
    b.arrived += kLanes - before;
    b.partly[w.index] = 0;
    b.came[w.index] = true;
  } else {
    b.arrived += static_cast<uint32_t>(std::popcount(b.partly[w.index])) - before;
  }
  if (votes) {
    b.votes += static_cast<uint32_t>(std::popcount(lanes));
    b.yes += static_cast<uint32_t>(std::popcount(yes));
  }
  if (w.clock) {
    check_users(w, index, lanes);
    b.users.push_back({nullptr, w.clock->agent, w.clock->now, lanes});
    w.machine->races->publish(w, lanes, b.known);
  }
  w.machine->progress();
  if (complete(cta, b)) finish(cta, b, index);
}

void lanes_exited(Warp& w, Mask lanes) {
  Cta& cta = *w.cta;
  if (!w.alive && cta.running == 1) finish_reads(cta);
  if (!w.alive) --cta.running;
  auto& all = barriers_of(cta);
  if (w.clock) w.machine->races->publish(w, lanes, all.exited);
  for (uint32_t i = 0; i < 16; ++i) {
    Barrier& b = all.barriers[i];
    if (!b.in_use) continue;
    const uint32_t before = static_cast<uint32_t>(std::popcount(b.partly[w.index]));
    if (before && w.alive && (w.alive & ~b.partly[w.index]) == 0) {
      b.arrived += kLanes - before;
      b.partly[w.index] = 0;
      b.came[w.index] = true;
    }
    if (complete(cta, b)) finish(cta, b, i);
  }
  if (cta.cluster->barrier) check_cluster(*cta.cluster, barrier_of(*cta.cluster));
}

std::string barrier_text(const Cta& cta, uint64_t index) {
  const Barrier& b = static_cast<const CtaBarriers&>(*cta.barriers).barriers[index];
  std::string text = std::to_string(index) + ", where ";
  if (b.count)
    return text + std::to_string(b.arrived) + " of " + std::to_string(b.count) +
           " threads have come,";
  std::string missing;
  for (const auto& w : cta.warps)
    if (w->alive && !b.came[w->index])
      missing += (missing.empty() ? "" : ", ") + std::to_string(w->index);
  return text + "warp " + missing + " has not come,";
}

void add_barrier_opcodes(Opcodes& ops) {
  ops["bar"] = encode_barrier;
  ops["barrier"] = encode_barrier;
  ops["barrier.cluster"] = encode_cluster;
}

}  // namespace ptx
