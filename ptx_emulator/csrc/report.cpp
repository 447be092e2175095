// What a fault or a standstill looks like to the author of the kernel.
#include "barriers.h"
#include "engines.h"
#include "error.h"
#include "machine.h"
#include "races.h"

namespace ptx {
namespace {

std::string triple(const uint32_t (&d)[3]) {
  return "(" + std::to_string(d[0]) + "," + std::to_string(d[1]) + "," + std::to_string(d[2]) + ")";
}

std::string lanes_text(Mask lanes) {
  if (lanes == kAllLanes) return "all lanes";
  std::string s = "lanes ";
  for (int l = 0; l < kLanes; ++l) {
    if (!(lanes >> l & 1)) continue;
    int end = l;
    while (end + 1 < kLanes && lanes >> (end + 1) & 1) ++end;
    if (s.back() != ' ') s += ",";
    s += std::to_string(l);
    if (end > l) s += "-" + std::to_string(end);
    l = end;
  }
  return s;
}

std::string wait_text(const Warp& w, const Group& g) {
  switch (g.wait) {
    case Wait::none: return "can run";
    case Wait::lanes:
    case Wait::warp_barrier:
      return "waits for " + lanes_text(g.members & w.alive & ~g.lanes) + " of the warp";
    case Wait::cta_barrier: return "waits at barrier " + barrier_text(*w.cta, g.key);
    case Wait::cluster_barrier: return "waits at the cluster's barrier";
    case Wait::registers: return "waits for registers that other warps are to give up";
    case Wait::async: return "waits for " + awaited_text(w, g.key);
  }
  return "";
}

}  // namespace

std::string Machine::thread_name(const Cta& cta, int warp, int lane) const {
  const uint32_t t = static_cast<uint32_t>(warp) * kLanes + static_cast<uint32_t>(lane);
  const uint32_t* b = options.block;
  const uint32_t index[3] = {t % b[0], t / b[0] % b[1], t / b[0] / b[1]};
  return "thread " + triple(index) + " of " + cta_name(cta);
}

std::string Machine::cta_name(const Cta& cta) const {
  return "CTA " + triple(cta.index);
}

// A fault may be the consequence of an earlier one, or of a race.
void Machine::fail(Fault::Kind kind, const std::string& text) const {
  std::string all = text;
  if (!reported_later_.empty()) {
    all = reported_later_ + "\nand then " + all;
    if (kind != Fault::race) kind = Fault::memory;
  }
  if (races && races->any()) {
    all = races->found() + "\nand then " + all;
    kind = Fault::race;
  }
  throw Fault(kind, all);
}

void Machine::finish() const {
  const bool races_found = races && races->any();
  if (races_found && reported_later_.empty()) throw Fault(Fault::race, races->found());
  if (races_found) throw Fault(Fault::race, races->found() + "\nand then " + reported_later_);
  if (!reported_later_.empty()) throw Fault(Fault::memory, reported_later_);
}

std::string Machine::text_of(const Warp& w, const Fault& fault) const {
  int lane = fault.lane;
  if (lane < 0) lane = w.active ? __builtin_ctz(w.active) : 0;
  return std::string(kernel.name) + ": " + fault.what() + "\n  at " + program.describe(w.pc) +
         "\n  by " + thread_name(*w.cta, w.index, lane);
}

void Machine::report_later(const Warp& w, const Fault& fault) {
  if (reported_later_.empty()) reported_later_ = text_of(w, fault);
}

void Machine::rethrow(const Warp& w, const Fault& fault) {
  fail(fault.kind, text_of(w, fault));
}

// Warps that wait alike are told once.
void Machine::report_stuck(const std::string& why) {
  std::vector<std::pair<std::string, std::pair<std::string, int>>> lines;
  for (const auto& cluster : resident_)
    for (const auto& cta : cluster->ctas)
      for (const auto& w : cta->warps) {
        std::vector<Group> groups = w->groups;
        if (w->active) groups.push_back({w->pc, w->active, Wait::none, 0, w->pc, 0});
        for (const Group& g : groups) {
          const uint32_t at = g.wait == Wait::none ? g.pc : g.at;
          const std::string place = wait_text(*w, g) + " at " + program.describe(at);
          const std::string who = thread_name(*cta, w->index, __builtin_ctz(g.lanes)) + " (warp " +
                                  std::to_string(w->index) + ", " + lanes_text(g.lanes) + ")";
          bool known = false;
          for (auto& [text, first] : lines)
            if (text == place) known = ++first.second;
          if (!known) lines.push_back({place, {who, 0}});
        }
      }
  std::string text = std::string(kernel.name) + ": deadlock, " + why + " (" +
                     std::to_string(started_) + " of " + std::to_string(clusters_) +
                     " clusters started)";
  for (size_t i = 0; i < lines.size() && i < 40; ++i) {
    const auto& [place, first] = lines[i];
    text += "\n  " + first.first + " " + place;
    if (first.second) text += "; and " + std::to_string(first.second) + " more groups of lanes";
  }
  fail(Fault::deadlock, text);
}

}  // namespace ptx
