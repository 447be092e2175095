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
    if (cell.tile_reads) settle_tile_reads(cell);
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
  p.time = mine.time_of(bit);
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

Mask Races::alike(const Warp& w, Mask lanes) const {
  const Mask first = lanes & -lanes;
  for (const WarpClock::Part& p : w.clock->parts) {
    if (p.lanes & first) return lanes & p.lanes;
    lanes &= ~p.lanes;
  }
  return lanes;
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

}  // namespace ptx
