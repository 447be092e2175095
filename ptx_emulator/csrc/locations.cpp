// Synchronisation through strong accesses: releases, fences, and the reads that see them.
#include <algorithm>

#include "races.h"

namespace ptx {

Races::Locations& Races::locations_of(const Warp& w, const Block& block) {
  if (block.begin < kSharedWindow) return locations_;
  return clusters_[static_cast<uint32_t>(w.cta->cluster->index)].locations;
}

bool Races::visible(const Release& r, Scope reader, const Warp& w) const {
  if (r.scope >= Scope::gpu && reader >= Scope::gpu) return true;
  if (cluster_of(r.at.agent) != w.cta->cluster->index) return false;
  return r.cta == w.cta->rank || (r.scope >= Scope::cluster && reader >= Scope::cluster);
}

bool Races::has_fenced(const WarpClock& c) {
  for (int level = 0; level < kLevels; ++level) {
    if (c.common.has_flushed(level)) return true;
    for (const WarpClock::Part& p : c.parts)
      if (p.known.has_flushed(level)) return true;
  }
  return false;
}

void Races::synchronise(Warp& w, const Block& block, const Access& a, const Manner& manner) {
  const bool strong = manner.order != Order::weak;
  const bool releases = manner.order == Order::release || manner.order == Order::acq_rel ||
                        manner.order == Order::seq_cst;
  const bool publishes = strong && manner.writes && (releases || has_fenced(*w.clock));
  if (!strong && !manner.writes) return;
  Locations* locations = nullptr;
  for (Mask left = a.mask; left;) {
    const int lane = __builtin_ctz(left);
    const uint64_t address = a.at[lane];
    Mask same = Mask{1} << lane;
    if (a.shape == Access::uniform) same = a.mask;
    left &= ~same;
    Cell& cell = *block.cell(address);
    if (!cell.is_location && !publishes) continue;
    if (!locations) locations = &locations_of(w, block);
    for (uint64_t word = address / 4; word <= (address + a.bytes - 1) / 4; ++word) {
      if (!strong) {
        locations->erase(word);
        continue;
      }
      const auto it = locations->find(word);
      if (manner.reads && it != locations->end()) read_location(w, same, it->second, manner);
      if (!manner.writes) continue;
      if (!publishes && it == locations->end()) continue;
      Location& location = it != locations->end() ? it->second : (*locations)[word];
      for_each_lane(same, [&](int l) { write_location(w, l, location, manner); });
      block.cell(word * 4)->is_location = 1;
    }
  }
}

void Races::read_location(Warp& w, Mask lanes, const Location& location, const Manner& manner) {
  const bool acquires = manner.order == Order::acquire || manner.order == Order::acq_rel ||
                        manner.order == Order::seq_cst;
  for (const Release& r : location.releases) {
    if (!visible(r, manner.scope, w)) continue;
    if (acquires) {
      observe(w, lanes, r.at);
      continue;
    }
    const int level = !visible(r, Scope::cluster, w) ? 2 : !visible(r, Scope::cta, w) ? 1 : 0;
    const int held = kHeld + level;
    if (!is_news(*w.clock, lanes, r.at, held)) continue;
    for_lanes(w, lanes, [&](Knowledge& k) {
      k.hold(*r.at.known, level);
      k.add(r.at.agent, r.at.time, r.at.lanes, false, held);
    });
  }
}

// Read-modify-writes continue what they read; other writes end it.
void Races::write_location(Warp& w, int lane, Location& location, const Manner& manner) {
  constexpr size_t kMost = 8;
  const Mask bit = Mask{1} << lane;
  WarpClock& c = *w.clock;
  auto& all = location.releases;
  if (!manner.reads)
    std::erase_if(all,
                  [&](const Release& r) { return r.at.agent != c.agent || r.at.lanes != bit; });
  constexpr Scope kScopes[kLevels] = {Scope::cta, Scope::cluster, Scope::gpu};
  for (int level = 0; level < kLevels; ++level) {
    bool flushed = c.common.has_flushed(level);
    for (const WarpClock::Part& p : c.parts)
      flushed |= (p.lanes & bit) && p.known.has_flushed(level);
    if (flushed)
      all.push_back(
          {std::min(kScopes[level], manner.scope), w.cta->rank, publish_flushed(w, lane, level)});
  }
  if (manner.order == Order::release || manner.order == Order::acq_rel ||
      manner.order == Order::seq_cst)
    all.push_back({manner.scope, w.cta->rank, publish(w, bit)});
  if (all.size() <= kMost) return;
  // Those of the widest scopes become one.
  std::shared_ptr<Knowledge> together;
  Release last{Scope::gpu, 0, {}};
  std::vector<Release> kept;
  for (Release& r : all) {
    if (r.scope < Scope::gpu) {
      kept.push_back(std::move(r));
      continue;
    }
    if (!together) together = std::make_shared<Knowledge>(cluster_of(r.at.agent));
    together->join(*r.at.known);
    together->add(r.at.agent, r.at.time, r.at.lanes, false);
    last = std::move(r);
  }
  if (together) {
    last.at.known = std::move(together);
    kept.push_back(std::move(last));
  }
  all = std::move(kept);
}

}  // namespace ptx
