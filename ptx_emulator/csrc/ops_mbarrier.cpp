// mbarrier.*
#include <algorithm>

#include "engines.h"

namespace ptx {
namespace {

// small: Kind; extra: whether the state is wanted (d). b: count, bytes, or what to wait for.
enum Kind : uint8_t { kPlain, kExpectTx, kNoComplete, kDrop = 4 };

// What mbarrier.arrive returns: the phase and the arrivals that were pending.
uint64_t state_of(const Mbarrier& b) {
  return b.phase << 20 | static_cast<uint64_t>(b.pending);
}

void take_common(Encoding& e, Order strongest = Order::relaxed) {
  const char* name = strongest == Order::acquire ? "acquire" : "release";
  e.out.order = e.take("relaxed") ? Order::relaxed : strongest;
  if (strongest != Order::relaxed) e.take(name);
  const int scope = e.take_one_of({"cta", "cluster"}, 0);
  e.out.scope = scope == 0 ? Scope::cta : Scope::cluster;
  take_state_space(e);
  if (e.out.space != Space::shared && e.out.space != Space::generic)
    e.fail("an mbarrier lies in shared memory");
  if (!e.take("b64")) e.fail("the type is .b64");
}

// A store by which the object begins or ends is one of the thread's own.
void note_store(Warp& w, uint64_t address, int lane) {
  if (!w.clock) return;
  Access a;
  a.mask = Mask{1} << lane;
  a.bytes = 8;
  a.at[lane] = address;
  a.shape = Access::uniform;
  check_races(w, owner_of(w, address).shared, a, {false, true, Order::weak, Scope::cta});
}

Flow init(Warp& w, const Instr& in, Mask mask) {
  Access a;
  find_addresses(w, in, mask, 8, a);
  const uint32_t* count = w.in<uint32_t>(in.b);
  for_each_lane(mask, [&](int l) {
    note_store(w, a.at[l], l);
    init_mbarrier(w, a.at[l], count[l], l);
  });
  return Flow::next;
}

Flow inval(Warp& w, const Instr& in, Mask mask) {
  Access a;
  find_addresses(w, in, mask, 8, a);
  for_each_lane(mask, [&](int l) {
    invalidate_mbarrier(w, a.at[l], l);
    note_store(w, a.at[l], l);
  });
  return Flow::next;
}

Flow arrive(Warp& w, const Instr& in, Mask mask) {
  Access a;
  find_addresses(w, in, mask, 8, a);
  const uint32_t* operand = w.in<uint32_t>(in.b);
  const bool expects = (in.small & 3) == kExpectTx;
  for_each_lane(mask, [&](int l) {
    Mbarrier& b = use_mbarrier(w, a.at[l], l);
    if (in.order == Order::release) publish(w, b, l);
    if (in.d != kNoRef) w.out<uint64_t>(in.d)[l] = state_of(b);
    if (expects) expect_tx(w, b, operand[l], l);
    const int64_t count = expects ? 1 : operand[l];
    if ((in.small & 3) == kNoComplete && b.pending - count == 0)
      throw Fault(Fault::race, "mbarrier.arrive.noComplete would complete " + b.describe(), l);
    if (in.small & kDrop)
      drop(w, b, count, l);
    else
      ptx::arrive(w, b, count, l);
  });
  w.machine->progress();
  return Flow::next;
}

// small: 1 for complete_tx
Flow change_tx(Warp& w, const Instr& in, Mask mask) {
  Access a;
  find_addresses(w, in, mask, 8, a);
  const uint32_t* bytes = w.in<uint32_t>(in.b);
  for_each_lane(mask, [&](int l) {
    Mbarrier& b = use_mbarrier(w, a.at[l], l);
    in.small ? complete_tx(w, b, bytes[l], l) : expect_tx(w, b, bytes[l], l);
  });
  w.machine->progress();
  return Flow::next;
}

// Whether the phase that the operand names is complete; small: 1 by parity, 2 may suspend.
Flow wait(Warp& w, const Instr& in, Mask mask) {
  Access a;
  find_addresses(w, in, mask, 8, a);
  w.machine->polls(w);
  Mask complete = 0;
  Mbarrier* b = nullptr;
  for_each_lane(mask, [&](int l) {
    if (!b || b->address != a.at[l]) {
      b = &use_mbarrier(w, a.at[l], l);
      if (a.at[l] != address_in(*w.cta, a.at[l]))
        throw Fault(Fault::memory, "a thread can only wait for an mbarrier of its own CTA", l);
    }
    bool over;
    if (in.small & 1) {
      over = (b->phase & 1) != (w.in<uint32_t>(in.b)[l] & 1);
    } else {
      const uint64_t phase = w.in<uint64_t>(in.b)[l] >> 20;
      if (phase > b->phase || phase + 1 < b->phase)
        throw Fault(Fault::race,
                    "a wait for phase " + std::to_string(phase) + " of " + b->describe() +
                        ", which is neither the present one nor the one before",
                    l);
      over = phase < b->phase;
    }
    complete |= Mask{over} << l;
  });
  const bool one = a.shape == Access::uniform || (mask & (mask - 1)) == 0;
  // A try_wait may also give up; nobody may count on its waiting. In late mode it does so first.
  uint32_t& gave_up = engines_of(w).gave_up_at;
  const Mode mode = w.machine->options.mode;
  const bool gives_up = mode == Mode::late
                            ? gave_up != w.pc
                            : mode == Mode::random && w.machine->random.below(8) == 0;
  gave_up = !complete && gives_up ? w.pc : ~0u;
  if (!complete && (in.small & 2) && one && !gives_up) {
    if (std::find(b->waiters.begin(), b->waiters.end(), &w) == b->waiters.end())
      b->waiters.push_back(&w);
    return w.park(Wait::async, mask, w.pc + 1, 0, b->address);
  }
  if (in.order == Order::acquire) {
    if (one)
      observe(w, *b, complete);
    else
      for_each_lane(complete, [&](int l) { observe(w, mbarrier_at(w, a.at[l], l), Mask{1} << l); });
  }
  write_pred(w.pred(in.d), mask, complete);
  return Flow::next;
}

Flow pending_count(Warp& w, const Instr& in, Mask mask) {
  const uint64_t* state = w.in<uint64_t>(in.a);
  write_lanes(w.out<uint32_t>(in.d), mask,
              [=](int l) { return static_cast<uint32_t>(state[l] & Mbarrier::kMostCount); });
  return Flow::next;
}

void encode_arrive(Encoding& e, bool drops) {
  const int form = e.take_one_of({"expect_tx", "noComplete"}) + 1;
  take_common(e, Order::release);
  e.out.small = static_cast<uint8_t>(form | (drops ? kDrop : 0));
  int at = 0;
  if (e.operand(0).kind != Operand::address) e.out.d = e.destination(at++, Type::b64);
  e.address(at++);
  e.expect_operands(form == kPlain ? at : at + 1, at + 1);
  e.out.b = e.operands() > at ? e.source(at, Type::u32) : e.constant(1, 4);
  e.out.run = arrive;
}

void encode_tx(Encoding& e, bool completes) {
  take_common(e);
  e.expect_operands(2, 2);
  e.address(0);
  e.out.b = e.source(1, Type::u32);
  e.out.small = completes ? 1 : 0;
  e.out.run = change_tx;
}

void encode_wait(Encoding& e, bool suspends) {
  const bool parity = e.take("parity");
  take_common(e, Order::acquire);
  e.out.small = static_cast<uint8_t>((parity ? 1 : 0) | (suspends ? 2 : 0));
  e.expect_operands(3, suspends ? 4 : 3);
  bool negated = false;
  e.out.d = e.predicate(0, negated);
  e.address(1);
  e.out.b = e.source(2, parity ? Type::u32 : Type::b64);
  if (e.operands() > 3) e.source(3, Type::u32);  // a hint
  e.out.run = wait;
}

void mbarrier(Encoding& e) {
  switch (e.take_one_of({"init", "inval", "arrive", "arrive_drop", "expect_tx", "complete_tx",
                         "test_wait", "try_wait", "pending_count"})) {
    case 0:
      take_common(e);
      e.expect_operands(2, 2);
      e.address(0);
      e.out.b = e.source(1, Type::u32);
      e.out.run = init;
      break;
    case 1:
      take_common(e);
      e.expect_operands(1, 1);
      e.address(0);
      e.out.run = inval;
      break;
    case 2: encode_arrive(e, false); break;
    case 3: encode_arrive(e, true); break;
    case 4: encode_tx(e, false); break;
    case 5: encode_tx(e, true); break;
    case 6: encode_wait(e, false); break;
    case 7: encode_wait(e, true); break;
    case 8:
      if (!e.take("b64")) e.fail("the type is .b64");
      e.expect_operands(2, 2);
      e.out.d = e.destination(0, Type::u32);
      e.out.a = e.source(1, Type::b64);
      e.out.run = pending_count;
      break;
    default: e.fail("this mbarrier operation is not modelled");
  }
}

}  // namespace

void add_mbarrier_opcodes(Opcodes& ops) {
  ops["mbarrier"] = mbarrier;
}

}  // namespace ptx
