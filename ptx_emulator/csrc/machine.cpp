#include "machine.h"

#include <algorithm>
#include <cstring>

#include "decoder.h"
#include "error.h"
#include "limits.h"
#include "profile.h"
#include "races.h"
#include "wgmma_state.h"

namespace ptx {
namespace {

uint64_t volume(const uint32_t (&d)[3]) {
  return uint64_t{d[0]} * d[1] * d[2];
}

// Warp instructions without progress until one more cluster is made resident, for each warp that
// could run; and until a launch in which all warps spin, or poll, is said to be stuck.
constexpr uint64_t kPatience = 2000, kProbe = 200000, kStuck = 20000000;
// Slices after which a group of lanes lets another one of its warp run.
constexpr uint32_t kRotation = 16;

// All that the next steps of a warp depend on, but for what it reads of memory.
struct State {
  uint32_t pc;
  Mask active;
  uint32_t turn;  // when another group of lanes is to run
  std::vector<std::pair<uint32_t, Mask>> groups;
  std::vector<uint8_t> registers, local;
  bool operator==(const State&) const = default;
};

State state_of(const Warp& w) {
  State s{w.pc,   w.active, w.slices % kRotation, {}, {w.base[0], w.base[0] + w.register_bytes},
          w.local};
  for (const Group& g : w.groups) s.groups.push_back({g.pc, g.lanes});
  return s;
}

}  // namespace

Machine::Machine(const Program& program, const Kernel& kernel, const LaunchOptions& options,
                 GlobalMemory& global, std::vector<uint8_t> params)
    : program(program),
      kernel(kernel),
      options(options),
      global(global),
      params(std::move(params)),
      random(options.seed) {
  check_limits(program, kernel, options);
  const uint64_t cluster_size = volume(options.cluster);
  clusters_ = volume(options.grid) / cluster_size;
  most_resident_ = std::max<uint64_t>(1, resident_ctas(program, kernel, options) / cluster_size);
  target_ = options.seed ? 1 + random.below(3) : 1;
  param_block.begin = kParamWindow;
  param_block.end = kParamWindow + this->params.size();
  param_block.data = this->params.data();
  param_block.read_only = true;
  param_block.name = "the kernel's parameters";
  if (options.races) races = std::make_unique<Races>(*this);
  const uint64_t warps = (volume(options.block) + kLanes - 1) / kLanes;
  stats.counts.assign(warps, std::vector<uint64_t>(program.code.size()));
  stats.skipped = stats.counts;
  if (options.profile) profile = std::make_unique<Profile>(program, warps);
}

Machine::~Machine() = default;

void Machine::run() {
  for (;;) {
    while (resident_.size() < target_ && started_ < clusters_) admit();
    if (queue_.empty()) {
      if (run_one_later()) continue;
      if (started_ < clusters_) {
        ++target_;
        continue;
      }
      if (resident_.empty()) break;
      report_stuck("every warp waits");
    }
    if (now > options.max_instructions)
      fail(Fault::limit, std::string(kernel.name) + ": more than " +
                             std::to_string(options.max_instructions) + " warp instructions");
    if (options.stop && *options.stop) throw Error(std::string(kernel.name) + ": stopped");
    while (!later_.empty() && later_.front().due <= now) run_one_later();
    const uint64_t idle = now - last_progress_;
    if (idle > kPatience * queue_.size() && started_ < clusters_ &&
        resident_.size() < most_resident_) {
      target_ = std::min(2 * target_, most_resident_);
      last_progress_ = now;
      continue;
    }
    // Warps that spin on a flag rather than wait don't move, either.
    if (idle > kPatience * queue_.size() && options.mode == Mode::late && run_one_later()) continue;
    if ((idle > kStuck && all_poll()) || (idle > kProbe && now > next_probe_ && all_spin()))
      report_stuck("the warps that run change nothing");
    slice(random.below(static_cast<uint32_t>(queue_.size())),
          options.seed ? 16 + random.below(512) : 256);
  }
  stats.warp_instructions = now;
  finish();
}

void Machine::ready(Warp& w) {
  progress();
  if (w.queued) return;
  w.queued = true;
  queue_.push_back(&w);
}

void Machine::later(std::function<void()> action) {
  if (options.mode == Mode::eager) {
    action();
    progress();
    return;
  }
  // Mostly soon, sometimes long after.
  const uint64_t delay = options.mode == Mode::late
                             ? uint64_t{1} << 62
                             : random.below(uint32_t{1} << (4 + random.below(11)));
  later_.push_back({now + delay, later_count_++, std::move(action)});
  std::push_heap(later_.begin(), later_.end());
}

bool Machine::run_one_later() {
  if (later_.empty()) return false;
  std::pop_heap(later_.begin(), later_.end());
  const auto action = std::move(later_.back().action);
  later_.pop_back();
  progress();
  action();
  return true;
}

// Runs a warp of the queue for a while; it stays there if it can go on.
void Machine::slice(size_t place, uint32_t length) {
  Warp& w = *queue_[place];
  const Instr* code = program.code.data();
  uint32_t left = length;
  slice_length_ = length;
  slice_left_ = &left;
  try {
    // A group that has run for several slices may spin on what another group is to do.
    const bool rotate = w.active != 0 && ++w.slices % kRotation == 0;
    if (!w.groups.empty() && !w.choose(rotate)) left = 0;
    while (left > 0) {
      const Instr& in = code[w.pc];
      Mask mask = w.active;
      if (in.guard != kNoRef) {
        const Mask p = w.pred(in.guard);
        mask &= in.guard_negated ? ~p : p;
      }
      --left;
      ++w.counts[w.pc];
      if (mask) {
        if (in.watched) note_matrix_registers(w, in);
        const Flow flow = in.run(w, in, mask);
        if (flow != Flow::next) {
          if (flow == Flow::jumped && w.pc < w.merge_pc) continue;
          if (!w.choose()) break;
          continue;
        }
      } else {
        ++w.skipped[w.pc];
      }
      if (++w.pc >= w.merge_pc && !w.choose()) break;
    }
  } catch (const Fault& fault) {
    rethrow(w, fault);
  }
  slice_left_ = nullptr;
  now += length - left;
  if (w.active) return;
  // The queue may have grown, but what it held has not moved.
  w.queued = false;
  queue_[place] = queue_.back();
  queue_.pop_back();
  if (w.done()) finish(w);
}

void Machine::finish(Warp& w) {
  Cluster& cluster = *w.cta->cluster;
  progress();
  if (--cluster.running > 0) return;
  if (races) races->retire(cluster);
  for (size_t i = 0; i < resident_.size(); ++i) {
    if (resident_[i].get() != &cluster) continue;
    retired_.push_back(std::move(resident_[i]));
    resident_.erase(resident_.begin() + static_cast<ptrdiff_t>(i));
    break;
  }
}

// Whether every warp that can run comes back to the very state it is in: nothing will ever change.
bool Machine::all_spin() {
  next_probe_ = now + kProbe;
  for (size_t i = 0; i < queue_.size(); ++i) {
    Warp& w = *queue_[i];
    if (w.active == 0) return false;
    const State before = state_of(w);
    const uint64_t changes = last_progress_;
    bool same = false;
    for (int step = 0; step < 4096 && !same; ++step) {
      slice(i, 1);
      if (!w.queued || last_progress_ != changes) return false;
      same = w.pc == before.pc && w.active == before.active && state_of(w) == before;
    }
    if (!same) return false;
  }
  return true;
}

// Whether no warp computes, which may be long, rather than wait for another.
bool Machine::all_poll() const {
  return std::all_of(queue_.begin(), queue_.end(),
                     [&](const Warp* w) { return w->polled + kStuck / 2 > now; });
}

}  // namespace ptx
