// Operations among the lanes of a warp.
#include <bit>

#include "barriers.h"
#include "encoding.h"
#include "error.h"
#include "integers.h"
#include "lanes.h"
#include "races.h"

namespace ptx {
namespace {

// Calls f(lanes, members) for the lanes that name the same members, once all members have come; a
// member that has exited is not waited for. False: the warp waits, and the handler must return
// Flow::regroup.
template <class F>
bool among_members(Warp& w, Mask mask, Ref members, F f) {
  const Mask* m = w.in<Mask>(members);
  Mask all = 0;
  for_each_lane(mask, [&](int l) {
    if (!(m[l] >> l & 1))
      throw Fault(Fault::trap, "the lane is not in its own member mask " + hex(m[l]), l);
    all |= m[l];
  });
  if (!w.gather(mask, all)) return false;
  for (Mask left = mask; left;) {
    const Mask mine = m[__builtin_ctz(left)];
    Mask same = 0;
    for_each_lane(left, [&](int l) { same |= Mask{m[l] == mine} << l; });
    f(same, mine & w.alive);
    left &= ~same;
  }
  return true;
}

enum class Shuffle : uint8_t { up, down, bfly, idx };

// extra: the predicate, or kNoRef; more: members
template <Shuffle kMode>
Flow shuffle(Warp& w, const Instr& in, Mask mask) {
  const uint32_t* a = w.in<uint32_t>(in.a);
  const uint32_t* b = w.in<uint32_t>(in.b);
  const uint32_t* c = w.in<uint32_t>(in.c);
  uint32_t result[kLanes];
  Mask in_range = 0;
  const bool done = among_members(w, mask, in.more, [&](Mask lanes, Mask members) {
    for_each_lane(lanes, [&](int l) {
      const int by = b[l] & 31, clamp = c[l] & 31, segment = c[l] >> 8 & 31;
      const int most = (l & segment) | (clamp & ~segment);
      int from = l;
      switch (kMode) {
        case Shuffle::up: from = l - by; break;
        case Shuffle::down: from = l + by; break;
        case Shuffle::bfly: from = l ^ by; break;
        case Shuffle::idx: from = (l & segment) | (by & ~segment); break;
      }
      const bool ok = kMode == Shuffle::up ? from >= most : from <= most;
      if (!ok) from = l;
      in_range |= Mask{ok} << l;
      // What a lane that takes no part would give is undefined.
      result[l] = members >> from & 1 ? a[from] : ~0u;
    });
  });
  if (!done) return Flow::regroup;
  if (in.d != kNoRef) {
    uint32_t* d = w.out<uint32_t>(in.d);
    for_each_lane(mask, [&](int l) { d[l] = result[l]; });
  }
  if (in.extra != kNoRef) write_pred(w.pred(in.extra), mask, in_range);
  return Flow::next;
}

// d|p or d
void result_and_predicate(Encoding& e, Type type) {
  const Operand& o = e.operand(0);
  e.out.extra = kNoRef;
  if (o.kind != Operand::pair) {
    e.out.d = e.destination(o, type);
    return;
  }
  e.out.d = e.destination(o.items[0], type);
  bool negated = false;
  if (o.items[1].word != "_") e.out.extra = e.predicate(o.items[1], negated);
  if (negated) e.fail("a negated result");
}

void need_sync(Encoding& e) {
  if (!e.take("sync")) e.fail("only the .sync form is modelled");
}

void shfl(Encoding& e) {
  need_sync(e);
  constexpr Handler kModes[] = {&shuffle<Shuffle::up>, &shuffle<Shuffle::down>,
                                &shuffle<Shuffle::bfly>, &shuffle<Shuffle::idx>};
  const int mode = e.take_one_of({"up", "down", "bfly", "idx"});
  if (mode < 0 || !e.take("b32")) e.fail("a mode and .b32 are expected");
  e.expect_operands(5, 5);
  result_and_predicate(e, Type::b32);
  e.out.a = e.source(1, Type::b32);
  e.out.b = e.source(2, Type::b32);
  e.out.c = e.source(3, Type::b32);
  e.out.more = e.source(4, Type::b32);
  e.out.run = kModes[mode];
}

enum Vote : uint8_t { kAll, kAny, kUni, kBallot };

// b: members; small: Vote; extra: whether the predicate is negated
Flow vote(Warp& w, const Instr& in, Mask mask) {
  Mask p = *w.in<Mask>(in.a);
  if (in.extra) p = ~p;
  Mask result = 0;
  uint32_t ballots[kLanes];
  const bool done = among_members(w, mask, in.b, [&](Mask lanes, Mask members) {
    const Mask yes = p & members;
    bool holds = false;
    switch (in.small) {
      case kAll: holds = yes == members; break;
      case kAny: holds = yes != 0; break;
      case kUni: holds = yes == 0 || yes == members; break;
      default: break;
    }
    if (holds) result |= lanes;
    for_each_lane(lanes, [&](int l) { ballots[l] = yes; });
  });
  if (!done) return Flow::regroup;
  if (in.small == kBallot) {
    uint32_t* d = w.out<uint32_t>(in.d);
    for_each_lane(mask, [&](int l) { d[l] = ballots[l]; });
  } else {
    write_pred(w.pred(in.d), mask, result);
  }
  return Flow::next;
}

void encode_vote(Encoding& e) {
  need_sync(e);
  const int kind = e.take_one_of({"all", "any", "uni", "ballot"});
  if (kind < 0) e.fail("a mode is expected");
  e.expect_operands(3, 3);
  const Type type = e.take_type();
  bool negated = false;
  if (kind == kBallot) {
    if (type != Type::b32) e.fail(".b32 is expected");
    e.out.d = e.destination(0, Type::b32);
  } else {
    if (type != Type::pred) e.fail(".pred is expected");
    e.out.d = e.predicate(0, negated);
    if (negated) e.fail("a negated result");
  }
  e.out.a = e.predicate_source(e.operand(1), negated);
  e.out.extra = negated;
  e.out.b = e.source(2, Type::b32);
  e.out.small = static_cast<uint8_t>(kind);
  e.out.run = vote;
}

// b: members; extra: the predicate of match.all
template <class T, bool kEvery>
Flow match(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  uint32_t result[kLanes];
  Mask equal = 0;
  const bool done = among_members(w, mask, in.b, [&](Mask lanes, Mask members) {
    for_each_lane(lanes, [&](int l) {
      Mask same = 0;
      for_each_lane(members, [&](int m) { same |= Mask{a[m] == a[l]} << m; });
      result[l] = kEvery ? (same == members ? members : 0) : same;
      equal |= Mask{same == members} << l;
    });
  });
  if (!done) return Flow::regroup;
  if (in.d != kNoRef) {
    uint32_t* d = w.out<uint32_t>(in.d);
    for_each_lane(mask, [&](int l) { d[l] = result[l]; });
  }
  if (in.extra != kNoRef) write_pred(w.pred(in.extra), mask, equal);
  return Flow::next;
}

void encode_match(Encoding& e) {
  need_sync(e);
  const int kind = e.take_one_of({"any", "all"});
  const Type type = e.take_type();
  if (kind < 0 || (type != Type::b32 && type != Type::b64)) e.fail("a mode and .b32 or .b64");
  e.expect_operands(3, 3);
  result_and_predicate(e, Type::b32);
  if (kind == 0 && e.out.extra != kNoRef) e.fail("match.any has no predicate");
  e.out.a = e.source(1, type);
  e.out.b = e.source(2, Type::b32);
  e.out.run = type == Type::b32 ? (kind ? &match<uint32_t, true> : &match<uint32_t, false>)
                                : (kind ? &match<uint64_t, true> : &match<uint64_t, false>);
}

template <class T, class F>
Flow reduce(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  T result[kLanes];
  const bool done = among_members(w, mask, in.b, [&](Mask lanes, Mask members) {
    T sum = a[__builtin_ctz(members)];
    for_each_lane(members & (members - 1), [&](int l) { sum = F{}(sum, a[l]); });
    for_each_lane(lanes, [&](int l) { result[l] = sum; });
  });
  if (!done) return Flow::regroup;
  T* d = w.out<T>(in.d);
  for_each_lane(mask, [&](int l) { d[l] = result[l]; });
  return Flow::next;
}

void redux(Encoding& e) {
  need_sync(e);
  const int op = e.take_one_of({"add", "min", "max", "and", "or", "xor"});
  const Type type = e.take_type();
  const bool arithmetic = op >= 0 && op < 3 && (type == Type::u32 || type == Type::s32);
  if (!arithmetic && !(op >= 3 && type == Type::b32)) e.fail("this operation is not modelled");
  e.expect_operands(3, 3);
  e.out.d = e.destination(0, type);
  e.out.a = e.source(1, type);
  e.out.b = e.source(2, Type::b32);
  const bool sign = type == Type::s32;
  constexpr Handler kHandlers[] = {
      &reduce<uint32_t, Add>,           &reduce<uint32_t, Min>,
      &reduce<uint32_t, Max>,           &reduce<uint32_t, std::bit_and<>>,
      &reduce<uint32_t, std::bit_or<>>, &reduce<uint32_t, std::bit_xor<>>};
  e.out.run = kHandlers[op];
  if (sign && op == 1) e.out.run = &reduce<int32_t, Min>;
  if (sign && op == 2) e.out.run = &reduce<int32_t, Max>;
}

// The lowest member is elected.
Flow elect(Warp& w, const Instr& in, Mask mask) {
  Mask elected = 0;
  uint32_t leader[kLanes];
  const bool done = among_members(w, mask, in.b, [&](Mask lanes, Mask members) {
    const int first = __builtin_ctz(members);
    elected |= Mask{1} << first;
    for_each_lane(lanes, [&](int l) { leader[l] = static_cast<uint32_t>(first); });
  });
  if (!done) return Flow::regroup;
  if (in.d != kNoRef) {
    uint32_t* d = w.out<uint32_t>(in.d);
    for_each_lane(mask, [&](int l) { d[l] = leader[l]; });
  }
  if (in.extra != kNoRef) write_pred(w.pred(in.extra), mask, elected);
  return Flow::next;
}

Flow active_mask(Warp& w, const Instr& in, Mask mask) {
  write_lanes(w.out<uint32_t>(in.d), mask, [=](int) { return mask; });
  return Flow::next;
}

// a: members; lanes that name different ones, such as tiles of a warp, meet apart.
Flow sync_warp(Warp& w, const Instr& in, Mask mask) {
  const Mask* m = w.in<Mask>(in.a);
  Mask waiting = 0;
  for (Mask left = mask; left;) {
    const Mask members = m[__builtin_ctz(left)];
    Mask same = 0;
    for_each_lane(left, [&](int l) { same |= Mask{m[l] == members} << l; });
    left &= ~same;
    if (same & ~members)
      throw Fault(Fault::trap, "the lane is not in its own member mask " + hex(members),
                  __builtin_ctz(same & ~members));
    if (members & w.alive & ~same) {
      w.groups.push_back({w.pc + 1, same, Wait::warp_barrier, members, w.pc});
      waiting |= same;
    } else if (w.clock) {
      w.machine->races->sync_lanes(w, same);
    }
  }
  if (!waiting) return Flow::next;
  w.active &= ~waiting;
  if (w.active) w.groups.push_back({w.pc + 1, w.active});
  w.active = 0;
  w.release_warp_barriers();
  return Flow::regroup;
}

}  // namespace

void add_warp_opcodes(Opcodes& ops) {
  ops["shfl"] = shfl;
  ops["vote"] = encode_vote;
  ops["match"] = encode_match;
  ops["redux"] = redux;
  ops["elect"] = [](Encoding& e) {
    need_sync(e);
    e.expect_operands(2, 2);
    result_and_predicate(e, Type::b32);
    e.out.b = e.source(1, Type::b32);
    e.out.run = elect;
  };
  ops["activemask"] = [](Encoding& e) {
    if (!e.take("b32")) e.fail(".b32 is expected");
    e.expect_operands(1, 1);
    e.out.d = e.destination(0, Type::b32);
    e.out.run = active_mask;
  };
  ops["bar.warp"] = [](Encoding& e) {
    e.take("warp");
    need_sync(e);
    e.expect_operands(1, 1);
    e.out.a = e.source(0, Type::b32);
    e.out.run = sync_warp;
  };
}

}  // namespace ptx
