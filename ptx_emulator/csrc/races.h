// Race detection: keeps the clocks of warps and asynchronous mechanisms, and checks each access
// against the earlier ones to the same bytes.
#pragma once

#include <deque>
#include <set>
#include <unordered_map>

#include "access.h"
#include "clocks.h"
#include "machine.h"
#include "shadow.h"

namespace ptx {

// The proxy through which a mechanism other than a warp accesses memory. The async proxy sees
// writes through the generic one only behind a fence.proxy.async. Writes of an exempt mechanism,
// which is of the generic proxy, are not held to need it.
enum class Proxy : uint8_t { generic, exempt, async };

// An operation of such a mechanism.
struct AsyncOperation {
  Agent agent;     // who does it
  uint32_t time;   // its phase or group
  uint32_t pc;     // of the instruction that asked for it
  Published view;  // what is ordered before it
};

class Races {
 public:
  explicit Races(Machine& machine);
  void start(Cluster& cluster);
  void start(Warp& w);
  void forget(const Block& shared);  // of a CTA that starts
  void retire(const Cluster& cluster);
  bool any() const { return !conflicts_.empty() || !notes_.empty(); }
  // Another breach of order than a pair of accesses, by an instruction.
  void note(const std::string& what, uint32_t pc);
  std::string found() const;

  // What lanes did and know goes into `to`, for others to observe.
  void publish(const Warp& w, Mask lanes, Knowledge& to) const;
  Published publish(Warp& w, Mask lanes) const;
  // Of that only what a fence of that scope has flushed.
  void publish_flushed(Warp& w, Mask lanes, Scope scope, Knowledge& to) const;
  void observe(Warp& w, Mask lanes, const Knowledge& from);
  void observe(Warp& w, Mask lanes, const Published& from);
  // Lanes have waited for what an agent did up to a time.
  void observe(Warp& w, Mask lanes, Agent agent, uint32_t time);
  // Or for what it did for some of whom it works for.
  void observe(Warp& w, Mask lanes, Agent agent, uint32_t time, Mask of);
  // Of these lanes, those that know just what the first does.
  Mask alike(const Warp& w, Mask lanes) const;
  bool knows(const Warp& w, int lane, const Published& of) const;
  // Each lane has waited for what the agent did for that lane.
  void observe_own(Warp& w, Agent agent, uint32_t time);
  void sync_lanes(Warp& w, Mask lanes);  // bar.warp.sync
  void fence(Warp& w, Mask lanes, Scope scope);
  void fence_proxy_async(Warp& w, Mask lanes);

  Agent new_agent(const Cta& cta, std::string what, Proxy proxy);
  // Bytes of one block, at the moment the operation takes effect; `lanes` are those that it is done
  // for if waiting concerns each by itself. Reductions do not race with each other.
  void access(const AsyncOperation& op, const Block& block, uint64_t address, uint64_t bytes,
              bool write, bool reduction = false, Mask lanes = 0);
  // Reads of the tile's chunks, which are aligned and of 16 bytes, through the async proxy.
  void read_tile(const AsyncOperation& op, const Block& block, const Tile& tile,
                 const uint8_t* const* chunks);
  void access(Warp& w, const Block& block, const Access& a, const Manner& manner);

 private:
  struct Mechanism {
    uint32_t rank;
    std::string what;
    Proxy proxy;
  };
  struct Location {
    std::vector<Release> releases;
  };
  using Locations = std::unordered_map<uint64_t, Location>;  // by address / 4
  struct OfCluster {
    std::vector<Mechanism> mechanisms;
    Locations locations;  // in shared memory
  };
  // What operations of one view know of an agent. They mostly meet the same few.
  struct Met {
    Agent agent = ~Agent{0};
    Known seen, proxied;
    bool generic = false;  // its writes are through the generic proxy
  };
  // Who judges what came before: a warp, or an operation.
  struct Judge {
    const WarpClock* clock;
    const AsyncOperation* op;
    bool of_async_proxy;
    bool is_atomic = false;
  };
  struct Conflict {
    Entry earlier, later;
    std::string place;
    bool only_proxy;
    std::string sources;  // of both, with -lineinfo
    uint32_t alike = 0;   // further pairs of instructions at these places in the source
  };
  struct Note {
    std::string what, source;
    uint32_t pc;
    uint32_t alike = 0;
  };

  // Whether the cell has a location that others synchronise with.
  bool touch(const Judge& judge, const Block& block, uint64_t address, const Entry& entry);
  // Reads of tiles: a read is known by its index in reads_.
  TileRead* find_read(const AsyncOperation& op, const Tile& tile, const Cell& cell);
  bool read_again(const AsyncOperation& op, TileRead& read) const;
  uint32_t new_read(const AsyncOperation& op, const Tile& tile);
  void release_read(uint32_t index);
  bool read_chunk(const AsyncOperation& op, Cell& cell, const Entry& entry);
  bool knows_of(const AsyncOperation& op, const TileRead::Writer& writer) const;
  bool may_read(const AsyncOperation& op, const Entry& write, TileRead& read) const;
  void settle_tile_reads(Cell& cell);
  void review(const Judge& judge, const Block& block, uint64_t address, Entry& earlier,
              Entry& later);
  void review_more(const Judge& judge, const Block& block, uint64_t address, Cell& cell,
                   Entry& entry);
  static void unite(Entry& earlier, Entry& later);
  void replace_read(const Judge& judge, Entry& earlier, const Entry& later) const;
  bool ordered(const Judge& judge, const Entry& earlier, const Entry& later) const;
  bool ordered_for_operation(const Judge& judge, const Entry& earlier, const Entry& later) const;
  bool ordered_for_lanes(const WarpClock& c, const Entry& earlier, const Entry& later) const;
  bool lane_by_lane(const WarpClock& c, const Entry& earlier, const Entry& later) const;
  bool needs_proxy_fence(const Judge& judge, const Entry& earlier) const;
  void put(Cell& cell, const Entry& entry);
  void remember(Cell& cell, const Entry& entry);
  bool both_strong(const Entry& a, const Entry& b) const;
  template <class F>
  void for_lanes(Warp& w, Mask lanes, F join);
  template <class F>
  void change_knowledge(Warp& w, Mask lanes, F change);
  static bool is_news(WarpClock& c, Mask lanes, const Published& from, int aspect);
  Published publish_flushed(Warp& w, int lane, int level) const;
  void refresh_copies(WarpClock& c) const;

  void report(const Block& block, uint64_t address, const Entry& earlier, const Entry& later,
              bool only_proxy);
  std::string describe(const Entry& e, Mask lanes) const;
  std::string describe(const Conflict& c) const;
  std::string describe(const Note& n) const;
  const Mechanism& mechanism(Agent agent) const;
  Proxy proxy_of(Agent agent) const;
  Judge judge_of(const AsyncOperation& op) const;
  static Entry entry_of(const AsyncOperation& op, bool write, Mask lanes);
  const Met& meet(const AsyncOperation& op, Agent agent) const;
  uint32_t rank_of(Agent agent) const;
  bool is_warp(Agent agent) const { return local_of(agent) < warps_per_cluster_; }

  void synchronise(Warp& w, const Block& block, const Access& a, const Manner& manner);
  void read_location(Warp& w, Mask lanes, const Location& location, const Manner& manner);
  void write_location(Warp& w, int lane, Location& location, const Manner& manner);
  static bool has_fenced(const WarpClock& c);
  bool visible(const Release& r, Scope reader, const Warp& w) const;
  Locations& locations_of(const Warp& w, const Block& block);

  Machine& machine_;
  uint32_t warps_per_cta_, warps_per_cluster_;
  std::vector<std::unique_ptr<WarpClock>> clocks_;
  std::deque<std::vector<Entry>> more_;  // Cell::more
  std::vector<uint32_t> free_more_;
  uint32_t next_victim_ = 0;
  std::vector<Entry> rest_;     // of entries that lose some bytes, while a cell is looked through
  std::deque<TileRead> reads_;  // of tiles; entries have the index for a time
  std::vector<uint32_t> free_reads_;
  Locations locations_;  // in global memory
  std::unordered_map<uint32_t, OfCluster> clusters_;
  mutable const OfCluster* last_ = nullptr;  // that mechanism() looked at
  mutable uint32_t last_cluster_ = 0;
  mutable std::shared_ptr<const Knowledge> met_by_;  // the view of what is in met_
  mutable Met met_[16];                              // by the agent's last bits
  std::vector<Conflict> conflicts_;
  std::vector<Note> notes_;
  std::set<uint32_t> noted_;                          // pcs
  std::set<std::pair<uint32_t, uint32_t>> reported_;  // pairs of pcs
};

// Calls join(knowledge) for what these lanes know; lanes that come to differ from the others get a
// part of their own.
template <class F>
void Races::for_lanes(Warp& w, Mask lanes, F join) {
  WarpClock& c = *w.clock;
  ++c.version;
  if ((w.alive & ~lanes) == 0) return join(c.common);
  const size_t parts = c.parts.size();
  for (size_t i = 0; i < parts; ++i) {
    const Mask both = c.parts[i].lanes & lanes;
    if (!both) continue;
    lanes &= ~both;
    if (both != c.parts[i].lanes) {
      c.parts[i].lanes &= ~both;
      c.parts.push_back({both, c.parts[i].known});
      join(c.parts.back().known);
    } else {
      join(c.parts[i].known);
    }
  }
  if (!lanes) return;
  c.parts.push_back({lanes, Knowledge(c.common.cluster())});
  join(c.parts.back().known);
}

}  // namespace ptx
