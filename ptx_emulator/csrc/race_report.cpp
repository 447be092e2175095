// Races in words.
#include <ranges>

#include "error.h"
#include "races.h"

namespace ptx {
namespace {

constexpr size_t kMostPairs = 4096;  // of PTX lines that are told apart

}  // namespace

void Races::report(const Block& block, uint64_t address, const Entry& earlier, const Entry& later,
                   bool only_proxy) {
  if (reported_.size() == kMostPairs || !reported_.emplace(earlier.pc, later.pc).second) return;
  // Unrolled code meets the same way at many instructions: once is enough.
  const auto source = [&](const Entry& e) {
    return machine_.program.source(static_cast<uint32_t>(e.pc));
  };
  std::string sources = source(earlier) + " and " + source(later);
  for (Conflict& c : conflicts_)
    if (sources != " and " && c.sources == sources && c.only_proxy == only_proxy &&
        c.later.write == later.write && c.earlier.write == earlier.write) {
      ++c.alike;
      return;
    }
  const uint32_t both = earlier.bytes & later.bytes;
  const uint64_t begin = address + static_cast<uint64_t>(__builtin_ctz(both));
  conflicts_.push_back({earlier, later, place_of(machine_, begin), only_proxy, std::move(sources)});
  conflicts_.back().earlier.lanes = earlier.lanes_of(both);
  conflicts_.back().later.lanes = later.lanes_of(both);
}

void Races::note(const std::string& what, uint32_t pc) {
  if (!noted_.insert(pc).second) return;
  const std::string source = machine_.program.source(pc);
  for (Note& n : notes_)
    if (!source.empty() && n.what == what && n.source == source) {
      ++n.alike;
      return;
    }
  notes_.push_back({what, source, pc});
}

std::string Races::describe(const Entry& e, Mask other_lanes) const {
  const uint64_t ctas_per_cluster = warps_per_cluster_ / warps_per_cta_;
  Cta cta;
  const uint32_t* c = machine_.options.cluster;
  const uint32_t* grid = machine_.options.grid;
  const uint64_t cluster = cluster_of(e.agent);
  const uint64_t along_x = grid[0] / c[0], along_y = grid[1] / c[1];
  const uint32_t rank = rank_of(e.agent) % static_cast<uint32_t>(ctas_per_cluster);
  cta.index[0] = static_cast<uint32_t>(cluster % along_x) * c[0] + rank % c[0];
  cta.index[1] = static_cast<uint32_t>(cluster / along_x % along_y) * c[1] + rank / c[0] % c[1];
  cta.index[2] = static_cast<uint32_t>(cluster / along_x / along_y) * c[2] + rank / c[0] / c[1];
  std::string who;
  if (is_warp(e.agent)) {
    // Within a warp, another lane than the other access's is the interesting one.
    const Mask lanes = e.lanes & ~other_lanes ? e.lanes & ~other_lanes : e.lanes;
    who = machine_.thread_name(cta, static_cast<int>(local_of(e.agent) % warps_per_cta_),
                               __builtin_ctz(lanes));
  } else {
    const auto& m =
        clusters_.at(cluster_of(e.agent)).mechanisms[local_of(e.agent) - warps_per_cluster_];
    who = m.what + " of " + machine_.cta_name(cta);
  }
  return std::string(e.write ? "write" : "read") + " by " + who + "\n    at " +
         machine_.program.describe(static_cast<uint32_t>(e.pc));
}

std::string Races::describe(const Conflict& c) const {
  const bool same = c.earlier.agent == c.later.agent && is_warp(c.later.agent);
  const Mask first = c.later.lanes & -c.later.lanes;
  std::string text = c.place + ":\n    " + describe(c.earlier, same ? first : 0) + "\n  and " +
                     describe(c.later, 0);
  text += c.only_proxy ? "\n  are ordered, but no fence.proxy.async lies between them"
          : same       ? "\n  by other lanes of the warp: nothing orders them"
                       : "\n  are not ordered";
  if (c.alike)
    text += "; so do " + std::to_string(c.alike) +
            " more pairs of PTX lines at these source lines meet";
  return text;
}

std::string Races::describe(const Note& n) const {
  std::string text = n.what + ": " + machine_.program.describe(n.pc);
  if (n.alike) text += "; so at " + std::to_string(n.alike) + " more PTX lines at this source line";
  return text;
}

std::string Races::found() const {
  constexpr size_t kListed = 8;  // of each sort
  const size_t count = conflicts_.size() + notes_.size();
  std::string text = std::string(machine_.kernel.name) + ": " + std::to_string(count) +
                     (count == 1 ? " race" : " races");
  size_t left = count;
  const auto list = [&](const auto& sort) {
    for (const auto& one : sort | std::views::take(kListed)) {
      text += "\n  " + describe(one);
      --left;
    }
  };
  list(conflicts_);
  list(notes_);
  if (left) text += "\n  and " + std::to_string(left) + " more, which are not listed";
  return text;
}

}  // namespace ptx
