// Each access is judged by the earlier ones to the same bytes, and remembered.
#include <algorithm>
#include <bit>
#include <span>

#include "cell_groups.h"
#include "error.h"
#include "races.h"

namespace ptx {

void check_races(Warp& w, const Block& block, const Access& a, const Manner& manner) {
  w.machine->races->access(w, block, a, manner);
}

const Races::Mechanism& Races::mechanism(Agent agent) const {
  const uint32_t cluster = cluster_of(agent);
  if (!last_ || last_cluster_ != cluster) {
    last_ = &clusters_.at(cluster);
    last_cluster_ = cluster;
  }
  return last_->mechanisms[local_of(agent) - warps_per_cluster_];
}

Proxy Races::proxy_of(Agent agent) const {
  return is_warp(agent) ? Proxy::generic : mechanism(agent).proxy;
}

uint32_t Races::rank_of(Agent agent) const {
  return is_warp(agent) ? local_of(agent) / warps_per_cta_ : mechanism(agent).rank;
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

inline const Races::Met& Races::meet(const AsyncOperation& op, Agent agent) const {
  if (op.view.known != met_by_) {
    met_by_ = op.view.known;
    for (Met& m : met_) m.agent = ~Agent{0};
  }
  Met& m = met_[agent % std::size(met_)];
  if (m.agent != agent)
    m = {agent, met_by_->of(agent, kSeen), met_by_->of(agent, kProxied),
         proxy_of(agent) == Proxy::generic};
  return m;
}

bool Races::ordered_for_operation(const Judge& judge, const Entry& earlier,
                                  const Entry& later) const {
  const AsyncOperation& op = *judge.op;
  if (earlier.agent == op.agent && earlier.time == op.time) return true;
  const auto covers = [&](Mask lanes) {
    return (earlier.agent == op.view.agent && earlier.time <= op.view.time &&
            (lanes & ~op.view.lanes) == 0) ||
           meet(op, earlier.agent).seen.covers(earlier.time, lanes);
  };
  return covers(earlier.lanes) || covers(earlier.lanes_of(later.bytes));
}

// Where what the warp's lanes know together does not tell.
bool Races::ordered_for_lanes(const WarpClock& c, const Entry& earlier, const Entry& later) const {
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

[[gnu::always_inline]] inline bool Races::ordered(const Judge& judge, const Entry& earlier,
                                                  const Entry& later) const {
  if (judge.op) return ordered_for_operation(judge, earlier, later);
  return judge.clock->common.covers(earlier.agent, earlier.time, earlier.lanes) ||
         ordered_for_lanes(*judge.clock, earlier, later);
}

bool Races::needs_proxy_fence(const Judge& judge, const Entry& earlier) const {
  if (!judge.of_async_proxy || !earlier.write) return false;
  const Met& met = meet(*judge.op, earlier.agent);
  return met.generic && !met.proxied.covers(earlier.time, earlier.lanes);
}

// Judges an earlier entry of the cell by the later one, which may take its place.
[[gnu::always_inline]] inline void Races::review(const Judge& judge, const Block& block,
                                                 uint64_t address, Entry& earlier, Entry& later) {
  const uint32_t both = earlier.bytes & later.bytes;
  if (!both) return;
  if (judge.clock && earlier.agent == later.agent && earlier.time == later.time)
    return unite(earlier, later);
  if (!earlier.write && !later.write) {
    if ((earlier.bytes & ~later.bytes) == 0 && later.strength <= earlier.strength)
      replace_read(judge, earlier, later);
    return;
  }
  if (ordered(judge, earlier, later)) {
    if (judge.of_async_proxy && needs_proxy_fence(judge, earlier))
      report(block, address, earlier, later, true);
    if (!later.write) return;
    if (both == earlier.bytes)
      earlier.bytes = 0;
    else
      earlier.drop(both, rest_);
  } else if (!both_strong(earlier, later)) {
    report(block, address, earlier, later, false);
    earlier.drop(both, rest_);
  } else if (judge.is_atomic && earlier.write) {
    // An atomic operation observes the write: what is ordered behind the one is behind the other.
    earlier.drop(both, rest_);
  }
}

// Lanes of one instruction are not held against each other, and none takes another's place.
void Races::unite(Entry& earlier, Entry& later) {
  const auto each = static_cast<uint64_t>(Sharing::each);
  if (earlier.bytes != later.bytes || earlier.sharing != each || later.sharing != each) return;
  later.lanes |= earlier.lanes;
  earlier.bytes = 0;
}

// A later read of at least these bytes, no stronger, takes the place of one that is ordered before
// it, and of one of the same lanes: who has waited for it has waited for the earlier one.
inline void Races::replace_read(const Judge& judge, Entry& earlier, const Entry& later) const {
  const bool same_lanes = earlier.agent == later.agent &&
                          static_cast<Sharing>(later.sharing) == Sharing::each &&
                          (earlier.lanes & ~later.lanes) == 0;
  if (same_lanes || ordered(judge, earlier, later)) earlier.bytes = 0;
}

bool Races::touch(const Judge& judge, const Block& block, uint64_t address, const Entry& entry) {
  Cell& cell = *block.cell(address);
  if (cell.tile_reads) settle_tile_reads(cell);
  Entry e = entry;
  for (Entry& earlier : cell.entries) review(judge, block, address, earlier, e);
  if (cell.more) review_more(judge, block, address, cell, e);
  put(cell, e);
  if (!rest_.empty()) {
    for (const Entry& part : rest_) put(cell, part);
    rest_.clear();
  }
  return cell.is_location;
}

inline void Races::put(Cell& cell, const Entry& entry) {
  for (Entry& place : cell.entries)
    if (!place.bytes) {
      place = entry;
      return;
    }
  remember(cell, entry);
}

[[gnu::noinline]] void Races::review_more(const Judge& judge, const Block& block, uint64_t address,
                                          Cell& cell, Entry& entry) {
  auto& more = more_[cell.more];
  // Among many readers a further one looks at the last few only.
  size_t i = entry.write || cell.more_writes || more.size() < 8 ? 0 : more.size() - 8;
  for (; i < more.size(); ++i) review(judge, block, address, more[i], entry);
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

Races::Judge Races::judge_of(const AsyncOperation& op) const {
  return {nullptr, &op, proxy_of(op.agent) == Proxy::async};
}

Entry Races::entry_of(const AsyncOperation& op, bool write, Mask lanes) {
  Entry e{};
  e.agent = op.agent;
  e.lanes = lanes;
  e.sharing = static_cast<uint64_t>(Sharing::each);
  e.time = op.time;
  e.pc = op.pc;
  e.write = write;
  return e;
}

void Races::access(const AsyncOperation& op, const Block& block, uint64_t address, uint64_t bytes,
                   bool write, bool reduction, Mask lanes) {
  if (!block.cells) return;
  const Judge judge = judge_of(op);
  Entry e = entry_of(op, write, lanes);
  e.strength = reduction ? 1 + static_cast<uint32_t>(Scope::gpu) : 0;
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
  bool locations = false;
  const auto touch_range = [&](uint64_t begin, uint64_t end) {
    for (uint64_t at = begin; at < end;) {
      const uint64_t next = std::min((at & ~uint64_t{15}) + 16, end);
      e.bytes = ((1u << (next - at)) - 1) << (at & 15);
      locations |= touch(judge, block, at & ~uint64_t{15}, e);
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
  } else if (a.shape == Access::contiguous && a.mask == kAllLanes && a.at[0] % 16 == 0) {
    const uint32_t lanes = 16 / a.bytes;
    e.sharing = static_cast<uint64_t>(Sharing::spread);
    e.bytes = 0xffff;
    for (uint32_t l = 0; l < kLanes; l += lanes) {
      e.lanes = ((Mask{1} << lanes) - 1) << l;
      locations |= touch(judge, block, a.at[l], e);
    }
  } else {
    CellGroup groups[kLanes];
    const int count = group_by_cells(a, groups);
    for (const CellGroup& g : std::span(groups, static_cast<size_t>(count))) {
      e.bytes = g.bytes;
      e.lanes = g.lanes;
      e.sharing = static_cast<uint64_t>(g.sharing);
      locations |= touch(judge, block, g.cell, e);
    }
  }
  if (locations || e.strength) synchronise(w, block, a, manner);
}

}  // namespace ptx
