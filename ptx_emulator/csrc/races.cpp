#include "races.h"

#include <algorithm>
#include <bit>

#include "error.h"

namespace ptx {

Races::Races(Machine& machine) : machine_(machine) {
  const auto& o = machine.options;
  const uint64_t threads = uint64_t{o.block[0]} * o.block[1] * o.block[2];
  const uint64_t ctas = uint64_t{o.cluster[0]} * o.cluster[1] * o.cluster[2];
  const uint64_t clusters = uint64_t{o.grid[0]} * o.grid[1] * o.grid[2] / ctas;
  warps_per_cta_ = static_cast<uint32_t>((threads + kLanes - 1) / kLanes);
  warps_per_cluster_ = static_cast<uint32_t>(warps_per_cta_ * ctas);
  if (clusters > uint64_t{1} << (kAgentBits - kLocalAgentBits))
    throw Fault(Fault::limit,
                "races are looked for in at most 262144 clusters; launch fewer, or "
                "with races=False");
  if (machine.program.code.size() > kMostPc)
    throw Fault(Fault::limit, "races are looked for in modules of at most 524288 instructions");
  more_.emplace_back();  // 0 stands for none
}

void Races::start(Cluster& cluster) {
  clusters_[static_cast<uint32_t>(cluster.index)].mechanisms.clear();
}

void Races::start(Warp& w) {
  if (!w.clock) {
    clocks_.push_back(std::make_unique<WarpClock>());
    w.clock = clocks_.back().get();
  }
  WarpClock& c = *w.clock;
  const auto cluster = static_cast<uint32_t>(w.cta->cluster->index);
  c.agent =
      cluster << kLocalAgentBits | (w.cta->rank * warps_per_cta_ + static_cast<uint32_t>(w.index));
  c.now = 0;
  ++c.version;
  c.common.clear(cluster);
  c.parts.clear();
  c.own.clear();
  for (auto& r : c.recent) r = {};
  c.copy.reset();
  for (auto& copy : c.flushed_copy) copy.reset();
}

void Races::forget(const Block& shared) {
  const uint64_t cells = (shared.end + 15) / 16 - shared.begin / 16;
  for (uint64_t i = 0; i < cells; ++i) {
    Cell& cell = shared.cells[i];
    if (cell.more) free_more_.push_back(cell.more);
    cell = Cell{};
  }
}

void Races::retire(const Cluster& cluster) {
  clusters_[static_cast<uint32_t>(cluster.index)].locations.clear();
}

Agent Races::new_agent(const Cta& cta, std::string what, Proxy proxy) {
  const auto cluster = static_cast<uint32_t>(cta.cluster->index);
  auto& all = clusters_[cluster].mechanisms;
  const uint64_t local = warps_per_cluster_ + all.size();
  if (local >= kLocalAgents)
    throw Fault(Fault::limit, "more than 2048 warps and mbarriers in a cluster");
  all.push_back({cta.rank, std::move(what), proxy});
  return cluster << kLocalAgentBits | static_cast<uint32_t>(local);
}

// -- What is known

void Races::publish(const Warp& w, Mask lanes, Knowledge& to) const {
  const WarpClock& c = *w.clock;
  to.join(c.common);
  for (const WarpClock::Part& p : c.parts)
    if (p.lanes & lanes) to.join(p.known);
  const bool full = (w.existing & ~lanes) == 0;
  for (const WarpClock::Own& own : c.own) to.add(own.agent, own.time, lanes, full);
  to.add(c.agent, c.now, lanes, full);
}

Published Races::publish(Warp& w, Mask lanes) const {
  WarpClock& c = *w.clock;
  Published p{nullptr, c.agent, c.now, lanes};
  refresh_copies(c);
  p.known = c.copy;
  bool beside = !c.own.empty();
  for (const WarpClock::Part& part : c.parts) beside |= (part.lanes & lanes) != 0;
  if (beside) {
    auto all = std::make_shared<Knowledge>(c.common);
    publish(w, lanes, *all);
    p.known = std::move(all);
  }
  return p;
}

// What a strong write of the lane without .release publishes: what a fence has flushed.
Published Races::publish_flushed(Warp& w, int lane, int level) const {
  WarpClock& c = *w.clock;
  const Mask bit = Mask{1} << lane;
  refresh_copies(c);
  Known mine = c.common.of(c.agent, kFlushed + level);
  Published p{nullptr, c.agent, 0, bit};
  const WarpClock::Part* part = nullptr;
  for (const WarpClock::Part& candidate : c.parts)
    if (candidate.lanes & bit) part = &candidate;
  if (part) {
    Knowledge all = c.common;
    all.join(part->known);
    mine = all.of(c.agent, kFlushed + level);
    p.known = std::make_shared<Knowledge>(all.flushed(level));
  } else {
    auto& copy = c.flushed_copy[level];
    if (!copy) copy = std::make_shared<Knowledge>(c.common.flushed(level));
    p.known = copy;
  }
  p.time = mine.lanes & bit ? std::max(mine.all, mine.part) : mine.all;
  return p;
}

void Races::publish_flushed(Warp& w, Mask lanes, Scope scope, Knowledge& to) const {
  for_each_lane(lanes, [&](int l) {
    const Published p = publish_flushed(w, l, level_of(scope));
    to.join(*p.known);
    if (p.time) to.add(p.agent, p.time, p.lanes, false);
  });
}

void Races::refresh_copies(WarpClock& c) const {
  if (c.copy && c.copy_version == c.version) return;
  c.copy = std::make_shared<Knowledge>(c.common);
  for (auto& copy : c.flushed_copy) copy.reset();
  c.copy_version = c.version;
}

void Races::observe(Warp& w, Mask lanes, const Knowledge& from) {
  for_lanes(w, lanes, [&](Knowledge& k) { k.join(from); });
}

void Races::observe(Warp& w, Mask lanes, const Published& from) {
  if (!is_news(*w.clock, lanes, from, kSeen)) return;
  for_lanes(w, lanes, [&](Knowledge& k) {
    k.join(*from.known);
    k.add(from.agent, from.time, from.lanes, false);
  });
}

// False if the lanes have just observed the same: a loop may wait for something else yet.
bool Races::is_news(WarpClock& c, Mask lanes, const Published& from, int aspect) {
  for (WarpClock::Recent& r : c.recent)
    if (r.from.known == from.known && r.from.time == from.time && r.from.lanes == from.lanes &&
        r.aspect == aspect) {
      const bool news = lanes & ~r.lanes;
      r.lanes |= lanes;
      return news;
    }
  c.recent[c.next_recent++ % std::size(c.recent)] = {from, lanes, aspect};
  return true;
}

void Races::observe(Warp& w, Mask lanes, Agent agent, uint32_t time) {
  for_lanes(w, lanes, [&](Knowledge& k) { k.add(agent, time); });
}

void Races::observe(Warp& w, Mask lanes, Agent agent, uint32_t time, Mask of) {
  for_lanes(w, lanes, [&](Knowledge& k) { k.add(agent, time, of, false); });
}

bool Races::knows(const Warp& w, int lane, const Published& of) const {
  const WarpClock& c = *w.clock;
  if (c.agent == of.agent && (of.lanes >> lane & 1)) return true;
  if (c.common.covers(of.agent, of.time, of.lanes)) return true;
  for (const WarpClock::Part& p : c.parts)
    if ((p.lanes >> lane & 1) && p.known.covers(of.agent, of.time, of.lanes)) return true;
  return false;
}

void Races::observe_own(Warp& w, Agent agent, uint32_t time) {
  WarpClock& c = *w.clock;
  ++c.version;
  for (WarpClock::Own& own : c.own)
    if (own.agent == agent) {
      own.time = std::max(own.time, time);
      return;
    }
  c.own.push_back({agent, time});
}

void Races::sync_lanes(Warp& w, Mask lanes) {
  WarpClock& c = *w.clock;
  ++c.version;
  if ((w.alive & ~lanes) == 0) {
    for (const WarpClock::Part& p : c.parts) c.common.join(p.known);
    c.parts.clear();
    c.common.add(c.agent, c.now);
    for (const WarpClock::Own& own : c.own) c.common.add(own.agent, own.time);
    return;
  }
  Knowledge together(c.common.cluster());
  for (const WarpClock::Part& p : c.parts)
    if (p.lanes & lanes) together.join(p.known);
  together.add(c.agent, c.now, lanes, false);
  for (const WarpClock::Own& own : c.own) together.add(own.agent, own.time, lanes, false);
  for_lanes(w, lanes, [&](Knowledge& k) { k.join(together); });
}

// Lanes that know more than others, or less, get their own knowledge changed.
template <class F>
void Races::change_knowledge(Warp& w, Mask lanes, F change) {
  WarpClock& c = *w.clock;
  const bool all = (w.alive & ~lanes) == 0;
  if (all) {
    for (WarpClock::Part& p : c.parts) {
      p.known.join(c.common);
      change(p.known);
    }
  }
  const Knowledge common = all ? Knowledge() : c.common;
  for_lanes(w, lanes, [&](Knowledge& k) {
    if (!all) k.join(common);
    change(k);
  });
}

void Races::fence_proxy_async(Warp& w, Mask lanes) {
  const WarpClock& c = *w.clock;
  const bool full = (w.existing & ~lanes) == 0;
  change_knowledge(w, lanes, [&](Knowledge& k) {
    k.proxy();
    k.add(c.agent, c.now, lanes, full, kProxied);
  });
}

void Races::fence(Warp& w, Mask lanes, Scope scope) {
  const WarpClock& c = *w.clock;
  const bool full = (w.existing & ~lanes) == 0;
  const int level = level_of(scope);
  change_knowledge(w, lanes, [&](Knowledge& k) {
    k.fence(level);
    k.add(c.agent, c.now, lanes, full, kFlushed + level);
  });
}

<<<<<<< HEAD
// -- Accesses

const Races::Mechanism& Races::mechanism(Agent agent) const {
  const uint32_t cluster = cluster_of(agent);
  if (!last_ || last_cluster_ != cluster) {
    last_ = &clusters_.at(cluster);
    last_cluster_ = cluster;
  }
  return last_->mechanisms[local_of(agent) - warps_per_cluster_];
}

Proxy Races::proxy_of(Agent agent) const {
  if (is_warp(agent)) return Proxy::generic;
  return mechanism(agent).proxy;
}

uint32_t Races::rank_of(Agent agent) const {
  if (is_warp(agent)) return local_of(agent) / warps_per_cta_;
  return mechanism(agent).rank;
}

bool Races::both_strong(const Entry& a, const Entry& b) const {
  if (!a.strength || !b.strength) return false;
  const auto scope = static_cast<Scope>(std::min<uint32_t>(a.strength, b.strength) - 1);
  if (scope >= Scope::gpu) return true;
  if (cluster_of(a.agent) != cluster_of(b.agent)) return false;
  return scope == Scope::cluster || rank_of(a.agent) == rank_of(b.agent);
}

// Whether each lane of `later` comes behind the same lane's part of `earlier`, and behind others'
// that it knows of.
bool Races::lane_by_lane(const WarpClock& c, const Entry& earlier, const Entry& later) const {
  if (earlier.lanes == later.lanes &&
      (std::has_single_bit(earlier.lanes) ||
       (earlier.sharing == later.sharing && earlier.bytes == later.bytes &&
        static_cast<Sharing>(earlier.sharing) == Sharing::spread)))
    return true;
  for (uint32_t left = earlier.bytes & later.bytes; left; left &= left - 1) {
    const Mask before = earlier.lanes_of(left & -left), after = later.lanes_of(left & -left);
    // Which lane it was is not known: it may have been the same.
    if (static_cast<Sharing>(earlier.sharing) == Sharing::some && (after & ~before) == 0) continue;
    bool known = true;
    for_each_lane(after, [&](int l) {
      const Mask others = before & ~(Mask{1} << l);
      if (!others || c.common.covers(earlier.agent, earlier.time, others)) return;
      bool by_part = false;
      for (const WarpClock::Part& p : c.parts)
        by_part |= (p.lanes >> l & 1) && p.known.covers(earlier.agent, earlier.time, others);
      known &= by_part;
    });
    if (!known) return false;
  }
  return true;
}

bool Races::ordered(const Judge& judge, const Entry& earlier, const Entry& later) const {
  if (judge.op) {
    const AsyncOperation& op = *judge.op;
    if (earlier.agent == op.agent && earlier.time == op.time) return true;
    return op.view.covers(earlier.agent, earlier.time, earlier.lanes) ||
           op.view.covers(earlier.agent, earlier.time, earlier.lanes_of(later.bytes));
  }
  const WarpClock& c = *judge.clock;
  if (c.common.covers(earlier.agent, earlier.time, earlier.lanes)) return true;
  if (earlier.agent == c.agent)  // lanes of one instruction are not held against each other
    return earlier.time == later.time || lane_by_lane(c, earlier, later);
  const Mask before = earlier.lanes_of(later.bytes);
  if (before != earlier.lanes && c.common.covers(earlier.agent, earlier.time, before)) return true;
  for (const WarpClock::Own& own : c.own)
    if (own.agent == earlier.agent && earlier.time <= own.time && lane_by_lane(c, earlier, later))
      return true;
  Mask left = later.lanes_of(earlier.bytes);
  for (const WarpClock::Part& p : c.parts)
    if (p.known.covers(earlier.agent, earlier.time, before)) left &= ~p.lanes;
  return left == 0;
}

bool Races::needs_proxy_fence(const Judge& judge, const Entry& earlier) const {
  if (!judge.of_async_proxy || !earlier.write) return false;
  if (proxy_of(earlier.agent) != Proxy::generic) return false;
  return !judge.op->view.known->covers(earlier.agent, earlier.time, earlier.lanes, kProxied);
}

void Races::review(const Judge& judge, const Block& block, uint64_t address, Entry& earlier,
                   const Entry& later) {
  const uint32_t both = earlier.bytes & later.bytes;
  if (!both) return;
  if (!earlier.write && !later.write) {
    // An ordered read of all these bytes that is no stronger takes the earlier one's place, and so
    // does one of the same lanes: who has waited for it has waited for the earlier one.
    const bool same = earlier.agent == later.agent && (earlier.lanes & ~later.lanes) == 0 &&
                      static_cast<Sharing>(later.sharing) == Sharing::each;
    if ((earlier.bytes & ~later.bytes) == 0 && later.strength <= earlier.strength &&
        (same || ordered(judge, earlier, later)))
      earlier.bytes = 0;
    return;
  }
  if (ordered(judge, earlier, later)) {
    if (needs_proxy_fence(judge, earlier)) report(block, address, earlier, later, true);
    if (later.write) earlier.drop(both);
  } else if (!both_strong(earlier, later)) {
    report(block, address, earlier, later, false);
    earlier.drop(both);
  } else if (judge.is_atomic && earlier.write) {
    // An atomic operation observes the write: what is ordered behind the one is behind the other.
    earlier.drop(both);
  }
}

void Races::touch(const Judge& judge, const Block& block, uint64_t address, const Entry& entry) {
  Cell& cell = *block.cell(address);
  for (Entry& e : cell.entries) review(judge, block, address, e, entry);
  if (cell.more) {
    auto& more = more_[cell.more];
    // Among many readers a further one looks at the last few only.
    size_t i = entry.write || cell.more_writes || more.size() < 8 ? 0 : more.size() - 8;
    for (; i < more.size(); ++i) review(judge, block, address, more[i], entry);
  }
  for (Entry& e : cell.entries)
    if (!e.bytes) {
      e = entry;
      return;
    }
  remember(cell, entry);
}

// Beyond the cell's own entries. Past a limit the oldest are forgotten: who races with them most
// likely races with others, too.
void Races::remember(Cell& cell, const Entry& entry) {
  constexpr size_t kMost = 64;
  if (!cell.more) {
    if (free_more_.empty()) {
      free_more_.push_back(static_cast<uint32_t>(more_.size()));
      more_.emplace_back();
    }
    cell.more = free_more_.back();
    free_more_.pop_back();
    more_[cell.more].clear();
    cell.more_writes = 0;
  }
  auto& more = more_[cell.more];
  if (entry.write) {
    std::erase_if(more, [](const Entry& e) { return !e.bytes; });
    cell.more_writes = 1;
  }
  if (!more.empty() && !more.back().bytes) {
    more.back() = entry;
  } else if (more.size() < kMost) {
    more.push_back(entry);
  } else {
    more[next_victim_++ % kMost] = entry;
  }
}

void Races::access(const AsyncOperation& op, const Block& block, uint64_t address, uint64_t bytes,
                   bool write, bool reduction, Mask lanes) {
  if (!block.cells) return;
  const Judge judge{nullptr, &op, proxy_of(op.agent) == Proxy::async};
  Entry e{};
  e.agent = op.agent;
  e.strength = reduction ? 1 + static_cast<uint32_t>(Scope::gpu) : 0;
  e.lanes = lanes;
  e.sharing = static_cast<uint64_t>(Sharing::each);
  e.time = op.time;
  e.pc = op.pc;
  e.write = write;
  for (uint64_t at = address, end = address + bytes; at < end;) {
    const uint64_t next = std::min((at & ~uint64_t{15}) + 16, end);
    e.bytes = ((1u << (next - at)) - 1) << (at & 15);
    touch(judge, block, at & ~uint64_t{15}, e);
    at = next;
  }
}

void Races::access(Warp& w, const Block& block, const Access& a, const Manner& manner) {
  WarpClock& c = *w.clock;
  if (++c.now > kMostTime)
    throw Fault(Fault::limit, "more than 67 million memory instructions of a warp");
  const Judge judge{&c, nullptr, false, manner.reads && manner.writes};
  Entry e{};
  e.agent = c.agent;
  e.strength = manner.order == Order::weak ? 0 : 1 + static_cast<uint32_t>(manner.scope);
  e.time = c.now;
  e.pc = w.pc;
  e.write = manner.writes;
  const auto touch_range = [&](uint64_t begin, uint64_t end) {
    for (uint64_t at = begin; at < end;) {
      const uint64_t next = std::min((at & ~uint64_t{15}) + 16, end);
      e.bytes = ((1u << (next - at)) - 1) << (at & 15);
      touch(judge, block, at & ~uint64_t{15}, e);
      at = next;
    }
  };
  const int first = __builtin_ctz(a.mask);
  if (a.shape == Access::uniform) {
    e.lanes = a.mask;
    e.sharing = static_cast<uint64_t>(Sharing::each);
    touch_range(a.at[first], a.at[first] + a.bytes);
  } else if (a.bytes >= 16) {
    for_each_lane(a.mask, [&](int l) {
      e.lanes = Mask{1} << l;
      touch_range(a.at[l], a.at[l] + a.bytes);
    });
  } else {
    // Lanes that go to the same cell one after another are taken together.
    const uint32_t ones = (1u << a.bytes) - 1;
    uint64_t cell = 0;
    const auto flush = [&] {
      if (!e.bytes) return;
      touch(judge, block, cell, e);
      e.bytes = 0;
    };
    for_each_lane(a.mask, [&](int l) {
      const uint64_t here = a.at[l] & ~uint64_t{15};
      const uint32_t bytes = ones << (a.at[l] & 15);
      if (e.bytes && here == cell) {
        const bool one = std::has_single_bit(e.lanes);
        const bool again = e.bytes == bytes, behind = bytes > e.bytes && !(bytes & e.bytes);
        const auto sharing = static_cast<Sharing>(e.sharing);
        if (again && (one || sharing == Sharing::each)) {
          e.sharing = static_cast<uint64_t>(Sharing::each);
          e.lanes |= Mask{1} << l;
          return;
        }
        if (behind && (one || sharing == Sharing::spread)) {
          e.sharing = static_cast<uint64_t>(Sharing::spread);
          e.bytes |= bytes;
          e.lanes |= Mask{1} << l;
          return;
        }
      }
      flush();
      cell = here;
      e.bytes = bytes;
      e.lanes = Mask{1} << l;
      e.sharing = static_cast<uint64_t>(Sharing::each);
    });
    flush();
  }
  synchronise(w, block, a, manner);
}

=======
>>>>>>> ptx-core
}  // namespace ptx
