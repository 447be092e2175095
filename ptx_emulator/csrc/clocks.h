// Happens-before clocks: whose accesses an agent may take for done.
//
// An agent is a warp or a mechanism that accesses memory by itself (copies on an mbarrier, a group
// of copies or of wgmma). Its time counts its memory instructions, or its phases or groups.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "program.h"

namespace ptx {

// The index of the agent's cluster above an index within the cluster.
using Agent = uint32_t;
constexpr int kAgentBits = 29, kLocalAgentBits = 11;
constexpr uint32_t kLocalAgents = 1u << kLocalAgentBits;
inline uint32_t cluster_of(Agent a) {
  return a >> kLocalAgentBits;
}
inline uint32_t local_of(Agent a) {
  return a & (kLocalAgents - 1);
}

// What is known of one agent: all it did up to `all`, and what some of its lanes did beyond that.
struct Known {
  struct Level {
    uint32_t time = 0;
    Mask lanes = 0;  // known up to that time, or further
  };
  static constexpr int kPartial = 2;
  uint32_t all = 0;
  Level levels[kPartial];  // descending times above `all`, ascending lanes; then empty ones

  Known() = default;
  explicit Known(uint32_t time) : all(time) {}
  Known(uint32_t time, Mask lanes) : levels{{time, lanes}} {}
  // Of an agent without lanes nobody is asked for: what is known of any lane is known of it.
  bool covers(uint32_t time, Mask who) const {
    return time <= all || (time <= levels[0].time && (who & ~lanes_at(time)) == 0);
  }
  // The lanes known up to that time, which is above `all`.
  Mask lanes_at(uint32_t time) const {
    return (time <= levels[0].time ? levels[0].lanes : 0) |
           (time <= levels[1].time ? levels[1].lanes : 0);
  }
  uint32_t time_of(Mask lane) const {
    return lane & levels[0].lanes ? levels[0].time : lane & levels[1].lanes ? levels[1].time : all;
  }
  bool includes(const Known& o) const {
    if (o.all > all) return false;
    for (const Level& l : o.levels)
      if (!covers(l.time, l.lanes)) return false;
    return true;
  }
  void join(const Known& o) {
    if (o.all > all || !includes(o)) join_levels(o);
  }
  void meet(const Known& o);  // what both know

 private:
  void join_levels(const Known& o);
  template <class Merge>
  void set_levels(const Known& a, const Known& b, Merge merge);
};

// Fences and reads act at the scope of a CTA, of a cluster, or beyond.
constexpr int kLevels = 3;
inline int level_of(Scope s) {
  return s == Scope::cta ? 0 : s == Scope::cluster ? 1 : 2;
}

// What is known of accesses.
enum Aspect : uint8_t {
  kSeen,                       // they are done
  kProxied,                    // a fence.proxy.async made them visible to the async proxy
  kFlushed,                    // a fence made them visible at a level; a strong write publishes
  kHeld = kFlushed + kLevels,  // a relaxed read saw what publishes them; a fence at that level,
                               // or a wider one, makes them seen
  kAspects = kHeld + kLevels,
};

// Of the agents of one cluster, by their local index; who is beyond the end is not known of.
struct ClusterView {
  std::array<std::vector<Known>, kAspects> of;

  void join(const ClusterView& o);
  bool includes(const ClusterView& o) const;
};

// Of all agents.
class Knowledge {
 public:
  Knowledge() = default;
  explicit Knowledge(uint32_t cluster) : cluster_(cluster) {}
  void clear(uint32_t cluster);
  void join(const Knowledge& o);
  // The accesses of these lanes up to that time are done. Full: these are all the agent's lanes.
  void add(Agent agent, uint32_t time, Mask lanes, bool full, int aspect = kSeen);
  void add(Agent agent, uint32_t time) { add(agent, time, 0, true); }
  void proxy();  // fence.proxy.async
  void fence(int level);
  // A relaxed read has seen a write that publishes `o`.
  void hold(const Knowledge& o, int level);
  // What is flushed at the level and seen, as seen.
  Knowledge flushed(int level) const;
  bool has_flushed(int level) const;
  void meet(const Knowledge& o);  // what all of both know

  bool covers(Agent agent, uint32_t time, Mask who, int aspect = kSeen) const {
    const ClusterView* view = view_of(agent);
    if (!view) return false;
    const auto& known = view->of[aspect];
    const uint32_t i = local_of(agent);
    return i < known.size() && known[i].covers(time, who);
  }
  Known of(Agent agent, int aspect) const;
  uint32_t cluster() const { return cluster_; }

 private:
  struct Foreign {
    uint32_t cluster;
    std::shared_ptr<const ClusterView> view;
  };
  const ClusterView* view_of(Agent agent) const {
    return cluster_of(agent) == cluster_ ? &own_ : find(cluster_of(agent));
  }
  const ClusterView* find(uint32_t cluster) const;
  void join_view(uint32_t cluster, std::shared_ptr<const ClusterView> view);
  template <class Changes, class Change>
  void change_views(Changes changes, Change change);

  uint32_t cluster_ = 0;
  ClusterView own_;
  std::vector<Foreign> foreign_;  // sorted by cluster
};

// What lanes of a warp knew at some time, and what they had done themselves up to another.
struct Published {
  std::shared_ptr<const Knowledge> known;
  Agent agent = 0;
  uint32_t time = 0;
  Mask lanes = 0;

  bool covers(Agent a, uint32_t t, Mask who) const {
    if (a == agent && t <= time && (who & ~lanes) == 0) return true;
    return known->covers(a, t, who);
  }
};

// A strong write that others may synchronise with by reading it.
struct Release {
  Scope scope;
  uint32_t cta;  // the writer's rank in its cluster
  Published at;
};

// A warp's clock. Most of what its lanes know they know together.
struct WarpClock {
  Agent agent = 0;
  uint32_t now = 0;      // the time of the last memory instruction
  uint32_t version = 0;  // counts changes of what the warp knows
  Knowledge common;
  struct Part {
    Mask lanes;
    Knowledge known;
  };
  std::vector<Part> parts;  // what some lanes know beside; no lane is in two of them
  struct Own {
    Agent agent;
    uint32_t time;
  };
  std::vector<Own> own;  // each lane knows what the agent did for that lane
  struct Recent {
    Published from;
    Mask lanes = 0;
    int aspect = 0;
  };
  Recent recent[16];  // what was observed last
  uint32_t next_recent = 0;
  // Of `common` as of copy_version: all of it, and what is flushed at each level.
  std::shared_ptr<const Knowledge> copy, flushed_copy[kLevels];
  uint32_t copy_version = 0;
};

}  // namespace ptx
