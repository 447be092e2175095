#include "engines.h"

#include <algorithm>

#include "decoder.h"
#include "wgmma_state.h"

namespace ptx {

CtaEngines::CtaEngines() = default;
CtaEngines::~CtaEngines() = default;
WarpEngines::WarpEngines() = default;
WarpEngines::~WarpEngines() = default;

Agent agent_of(Warp& w, Agent& agent, const char* what, Proxy proxy) {
  if (!agent)
    agent = w.machine->races->new_agent(
        *w.cta, std::string(what) + " of warp " + std::to_string(w.index), proxy);
  return agent;
}

CtaEngines& engines_of(Cta& cta) {
  if (!cta.engines) cta.engines = std::make_unique<CtaEngines>();
  return static_cast<CtaEngines&>(*cta.engines);
}
WarpEngines& engines_of(Warp& w) {
  if (!w.engines) w.engines = std::make_unique<WarpEngines>();
  return static_cast<WarpEngines&>(*w.engines);
}

std::vector<std::shared_ptr<AsyncGroups::Operation>> AsyncGroups::issue(Mask mask) {
  std::vector<std::shared_ptr<Operation>> all;
  for (Mask left = mask; left;) {
    const uint32_t group = open[__builtin_ctz(left)];
    Mask same = 0;
    for_each_lane(left, [&](int l) { same |= Mask{open[l] == group} << l; });
    left &= ~same;
    all.push_back(std::make_shared<Operation>(Operation{same, group, time}));
  }
  pending.insert(pending.end(), all.begin(), all.end());
  return all;
}

void AsyncGroups::commit(Mask mask) {
  for_each_lane(mask, [&](int l) {
    if (times.size() <= open[l]) times.resize(open[l] + 1);
    times[open[l]++] = time;
  });
  ++time;
}

uint32_t AsyncGroups::time_before(Mask& mask, uint32_t allowed) const {
  mask &= lanes_where([&](int l) { return open[l] > 0; });
  uint32_t least = mask ? time : 0;
  for_each_lane(mask, [&](int l) {
    least = std::min(least, open[l] > allowed ? times[open[l] - allowed - 1] : 0);
  });
  return least;
}

bool AsyncGroups::waiting(Mask mask, uint32_t allowed, bool only_reads) const {
  for (const auto& op : pending) {
    if ((op->lanes & mask) == 0 || (only_reads && !op->reading)) continue;
    bool old = false;
    for_each_lane(op->lanes & mask, [&](int l) { old |= op->group + allowed < open[l]; });
    if (old) return true;
  }
  return false;
}

bool AsyncGroups::any(Mask mask) const {
  return std::any_of(pending.begin(), pending.end(),
                     [=](const auto& op) { return (op->lanes & mask) != 0; });
}

void AsyncGroups::finish(Operation& op) {
  op.done = true;
  std::erase_if(pending, [&](const auto& p) { return p.get() == &op; });
}

void AsyncGroups::note_unread(const Unread& copy) {
  for (Unread& u : unread)
    if (u.pc == copy.pc && u.lane == copy.lane) {
      u.group = copy.group;
      return;
    }
  unread.push_back(copy);
}

void AsyncGroups::note_waited(Mask mask, uint32_t allowed) {
  std::erase_if(unread, [&](const Unread& u) {
    return (mask >> u.lane & 1) && u.group + allowed < open[u.lane];
  });
}

void AddressCode::encode(Encoding& e, const Operand& o, Space space, std::vector<Ref>& words) {
  if (o.kind != Operand::address) e.fail("an address is expected");
  uint64_t offset = o.value.bits;
  Ref ref = kNoRef;
  bool wide = false;
  if (!o.word.empty()) {
    const Symbol* s = e.decoder().find(o.word);
    if (!s) e.fail("unknown name " + std::string(o.word));
    if (s->kind == Symbol::reg) {
      ref = s->ref;
      wide = bits_of(s->type) == 64;
      if (!wide && bits_of(s->type) != 32) e.fail("an address has 32 or 64 bits");
    } else if (s->kind == Symbol::memory && s->space == Space::shared) {
      ref = (s->dynamic ? kDynamicShared : kSharedBase) * kLanes * sizeof(uint32_t);
      offset += s->address;
      space = Space::shared;
    } else if (s->kind == Symbol::memory && s->space != Space::local) {
      offset += s->address;
      space = Space::global;
    } else if (s->kind == Symbol::kernel_param) {
      offset += s->address;
      space = Space::param;
    } else {
      e.fail("this address is not modelled here");
    }
  }
  const uint64_t window = space == Space::shared ? 1 : space == Space::param ? 2 : 0;
  words.insert(words.end(), {ref, static_cast<Ref>(window << 1 | (wide ? 1 : 0)),
                             static_cast<Ref>(offset), static_cast<Ref>(offset >> 32)});
}

AddressCode::AddressCode(const Warp& w, const Ref* words)
    : offset_(words[2] | uint64_t{words[3]} << 32) {
  const uint64_t windows[] = {0, kSharedWindow, kParamWindow};
  window_ = windows[words[1] >> 1];
  if (words[0] == kNoRef) return;
  if (words[1] & 1)
    wide_ = w.in<uint64_t>(words[0]);
  else
    narrow_ = w.in<uint32_t>(words[0]);
}

uint64_t AddressCode::operator()(int lane) const {
  if (wide_) return wide_[lane] + offset_ + window_;
  if (narrow_) return uint64_t{narrow_[lane] + static_cast<uint32_t>(offset_)} + window_;
  return offset_ + window_;
}

void run_later(Warp& w, uint32_t pc, int lane, const char* what, const Cta& needed,
               std::function<void()> action, AtExit at_exit) {
  Machine& machine = *w.machine;
  if (is_eager(w)) return machine.later(std::move(action));
  const std::string who = machine.thread_name(*w.cta, w.index, lane);
  machine.later([&needed, &machine, who, what, pc, at_exit, cluster = needed.cluster->index,
                 action = std::move(action)] {
    try {
      const bool exited = needed.cluster->index != cluster || needed.running == 0;
      if (exited && at_exit == AtExit::drop) return;
      if (exited)
        throw Fault(Fault::memory, std::string("the CTA exited before ") + what +
                                       " that uses its shared memory was over");
      action();
    } catch (const Fault& fault) {
      std::string found;
      if (machine.races && machine.races->any()) found = machine.races->found() + "\nand then ";
      throw Fault(found.empty() ? fault.kind : Fault::race,
                  found + std::string(machine.kernel.name) + ": " + fault.what() + "\n  in " +
                      what + " begun at " + machine.program.describe(pc) + "\n  by " + who);
    }
  });
}

Cta& owner_of(Warp& w, uint64_t address) {
  return *w.cta->cluster->ctas[(address - kSharedWindow) >> kRankShift];
}

uint64_t address_in(const Cta& cta, uint64_t address) {
  return kSharedWindow + (uint64_t{cta.rank} << kRankShift) + (address & kSharedOffsetMask);
}

void finish_reads(Cta& cta) {
  for (const auto& w : cta.warps) {
    if (!w->engines) continue;
    Machine& machine = *w->machine;
    const AsyncGroups& bulk = engines_of(*w).bulk;
    for (const AsyncGroups::Unread& u : bulk.unread)
      if (machine.races)
        machine.races->note("its CTA exits before it is known to have read shared memory", u.pc);
    const auto reading = [](const auto& op) { return op->reading; };
    while (std::ranges::any_of(bulk.pending, reading) && machine.run_one_later()) {
    }
  }
}

std::string awaited_text(const Warp& w, uint64_t key) {
  switch (key) {
    case kCopyKey: return "its copies (cp.async)";
    case kBulkKey: return "its bulk copies";
    case kWgmmaKey: return "wgmma, perhaps for other warps to issue theirs";
    default: break;
  }
  const auto& all = engines_of(*w.cta).mbarriers;
  const auto it = all.find(static_cast<uint32_t>(key & kSharedOffsetMask));
  return it == all.end() ? "an mbarrier that is gone" : it->second.describe();
}

std::vector<Operand> elements_of(const Operand& o) {
  return o.kind == Operand::vector ? o.items : std::vector<Operand>{o};
}

}  // namespace ptx
