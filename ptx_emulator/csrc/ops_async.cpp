// cp.async with its groups and mbarrier arrivals, st.async, red.async.
#include <algorithm>
#include <cstring>

#include "async_copy.h"

namespace ptx {
namespace {

constexpr const char* kCopyName = "an asynchronous copy";

void copy_landed(Warp& w, AsyncGroups::Operation& op) {
  WarpEngines& engines = engines_of(w);
  engines.copies.finish(op);
  w.wake(Wait::async, kCopyKey);
  auto& arrivals = engines.arrivals;
  for (size_t i = 0; i < arrivals.size();) {
    auto& after = arrivals[i].after;
    std::erase_if(after, [](const auto& o) { return o->done; });
    if (!after.empty()) {
      ++i;
      continue;
    }
    const auto arrive = std::move(arrivals[i].arrive);
    arrivals.erase(arrivals.begin() + static_cast<ptrdiff_t>(i));
    arrive();
  }
}

// small: bytes; extra: what operand c is. Further operands: the addresses.
enum Source : uint32_t { kWhole, kSize, kIgnore, kIgnoreUnless };

uint32_t source_bytes(const Warp& w, const Instr& in, int lane) {
  switch (in.extra) {
    case kWhole: return in.small;
    case kSize: {
      const uint32_t bytes = w.in<uint32_t>(in.c)[lane];
      if (bytes > in.small)
        throw Fault(Fault::memory,
                    "cp.async reads " + std::to_string(bytes) + " bytes to write " +
                        std::to_string(in.small),
                    lane);
      return bytes;
    }
    default: {
      const bool ignore = (*w.in<Mask>(in.c) >> lane & 1) == (in.extra == kIgnore ? 1u : 0u);
      return ignore ? 0 : in.small;
    }
  }
}

Flow copy(Warp& w, const Instr& in, Mask mask) {
  const Ref* refs = program_of(w).refs.data() + in.more;
  const AddressCode to(w, refs), from(w, refs + AddressCode::kWords);
  auto transfer = std::make_shared<Transfer>();
  transfer->pieces.reserve(kLanes);
  for_each_lane(mask, [&](int l) {
    const uint64_t at = to(l), source = from(l);
    const uint32_t bytes = source_bytes(w, in, l), size = in.small;
    if ((at | source) % size)
      throw Fault(Fault::memory, "cp.async: " + misaligned(w, at % size ? at : source, size), l);
    if (at != address_in(*w.cta, at))
      throw Fault(Fault::memory, "cp.async writes to the shared memory of its own CTA only", l);
    if (bytes) transfer->add(w, l, at, source, bytes);
    if (bytes < size) transfer->add(w, l, at + bytes, 0, size - bytes);
  });
  if (w.profile) transfer->note_bytes(w);
  const auto ops = engines_of(w).copies.issue(mask);
  for (Mask left = w.clock ? mask : 0; left;) {
    const Mask alike = w.machine->races->alike(w, left);
    left &= ~alike;
    AsyncOperation op = operation_of(w, alike);
    op.agent = agent_of(w, engines_of(w).copy_agent, "a cp.async", Proxy::exempt);
    op.time = ops.front()->time;
    transfer->note_reads(w, op, true);
    transfer->note_writes(w, op, true);
  }
  if (!is_eager(w)) transfer->poison();
  const auto land = [&w, transfer, ops] {
    transfer->land();
    for (const auto& op : ops) copy_landed(w, *op);
  };
  run_later(w, w.pc, __builtin_ctz(mask), kCopyName, *w.cta, land, AtExit::drop);
  return Flow::next;
}

Flow commit(Warp& w, const Instr&, Mask mask) {
  engines_of(w).copies.commit(mask);
  return Flow::next;
}

// imm: groups that may be left; -1: none, committed or not
Flow wait(Warp& w, const Instr& in, Mask mask) {
  const AsyncGroups& copies = engines_of(w).copies;
  const bool waits =
      in.imm < 0 ? copies.any(mask) : copies.waiting(mask, static_cast<uint32_t>(in.imm), false);
  if (waits) return w.park(Wait::async, mask, w.pc, 0, kCopyKey);
  if (const Agent agent = engines_of(w).copy_agent; w.clock && agent) {
    // Copies of this time are over, too, as are the groups, but not those that come.
    const uint32_t time = in.imm < 0 ? engines_of(w).copies.time++
                                     : copies.time_before(mask, static_cast<uint32_t>(in.imm));
    if ((w.alive & ~mask) == 0)
      w.machine->races->observe_own(w, agent, time);
    else
      w.machine->races->observe(w, mask, agent, time, mask);
  }
  return Flow::next;
}

// small: the barrier does not count the arrival yet (no .noinc)
Flow arrive_after(Warp& w, const Instr& in, Mask mask) {
  Access a;
  find_addresses(w, in, mask, 8, a);
  WarpEngines& engines = engines_of(w);
  for_each_lane(mask, [&](int l) {
    Mbarrier& b = use_mbarrier(w, a.at[l], l);
    if (in.small) add_pending(w, b, 1, l);
  });
  const uint32_t time = engines.copies.time++;
  const auto arrive_all = [&w, a, mask, time] {
    const Agent agent = engines_of(w).copy_agent;
    for_each_lane(mask, [&](int l) {
      Mbarrier& b = mbarrier_at(w, a.at[l], l);
      if (w.clock && agent) b.arriving.add(agent, time, Mask{1} << l, false);
      arrive(w, b, 1, l);
    });
  };
  WarpEngines::Arrival arrival;
  for (const auto& op : engines.copies.pending)
    if (op->lanes & mask) arrival.after.push_back(op);
  if (arrival.after.empty()) {
    arrive_all();
    return Flow::next;
  }
  arrival.arrive = arrive_all;
  engines.arrivals.push_back(std::move(arrival));
  return Flow::next;
}

// [dst], [src], size {, source size or ignore-src} {, policy}
void encode_copy(Encoding& e) {
  const bool bypasses = e.take_one_of({"ca", "cg"}) == 1;
  if (!e.take("shared") && !e.take("shared::cta")) e.fail("the destination is .shared");
  if (!e.take("global")) e.fail("the source is .global");
  const bool policy = e.take("L2::cache_hint");
  e.take_one_of({"L2::64B", "L2::128B", "L2::256B"});
  e.expect_operands(policy ? 4 : 3, policy ? 5 : 4);
  std::vector<Ref> words;
  AddressCode::encode(e, e.operand(0), Space::shared, words);
  AddressCode::encode(e, e.operand(1), Space::global, words);
  const uint64_t size = e.integer(2);
  if (size != 16 && (bypasses || (size != 4 && size != 8)))
    e.fail("the size must be 16, or 4 or 8 with .ca");
  e.out.small = static_cast<uint8_t>(size);
  e.out.extra = kWhole;
  if (e.operands() - (policy ? 1 : 0) == 4) {
    const Operand& o = e.operand(3);
    if (e.register_type(o) == Type::pred) {
      bool negated = false;
      e.out.c = e.predicate(o, negated);
      e.out.extra = negated ? kIgnoreUnless : kIgnore;
    } else {
      e.out.c = e.source(o, Type::u32);
      e.out.extra = kSize;
    }
  }
  if (policy) e.source(e.operands() - 1, Type::b64);
  e.further(words);
  e.out.run = copy;
}

void cp_async(Encoding& e) {
  e.take("async");
  if (e.take("bulk")) return encode_bulk(e);
  if (e.take("mbarrier")) {
    if (!e.take("arrive")) e.fail("cp.async.mbarrier.arrive is expected");
    e.out.small = e.take("noinc") ? 0 : 1;
    take_state_space(e);
    if (!e.take("b64")) e.fail("the type is .b64");
    e.expect_operands(1, 1);
    e.address(0);
    e.out.run = arrive_after;
    return;
  }
  switch (e.take_one_of({"commit_group", "wait_group", "wait_all"})) {
    case 0:
      e.expect_operands(0, 0);
      e.out.run = commit;
      break;
    case 1:
      e.expect_operands(1, 1);
      e.out.imm = static_cast<int64_t>(e.integer(0));
      e.out.run = wait;
      break;
    case 2:
      e.expect_operands(0, 0);
      e.out.imm = -1;
      e.out.run = wait;
      break;
    default: encode_copy(e);
  }
}

// st.async and red.async: small: bytes of an element; imm: the reduction, or -1; extra: its type.
// Further operands: address, mbarrier, values.
Flow store_async(Warp& w, const Instr& in, Mask mask) {
  const Ref* refs = program_of(w).refs.data() + in.more;
  const AddressCode to(w, refs), barrier(w, refs + AddressCode::kWords);
  const int values = in.count - 2 * AddressCode::kWords;
  const uint32_t bytes = in.small * values;
  for_each_lane(mask, [&](int l) {
    const uint64_t at = to(l), signal = barrier(l);
    if (at % bytes) throw Fault(Fault::memory, misaligned(w, at, bytes), l);
    if (&owner_of(w, signal) != &owner_of(w, at))
      throw Fault(Fault::memory, "data and mbarrier must be in the same CTA's shared memory", l);
    std::vector<uint8_t> data(bytes);
    for (int v = 0; v < values; ++v)
      std::memcpy(data.data() + v * in.small,
                  w.in<uint8_t>(refs[2 * AddressCode::kWords + v]) + l * in.small, in.small);
    auto transfer = std::make_shared<Transfer>();
    if (in.imm >= 0) transfer->reduction = static_cast<Reduction>(in.imm);
    transfer->type = static_cast<Type>(in.extra);
    transfer->add(w, l, at, 0, bytes);
    transfer->pieces.back().from = data.data();
    transfer->data = std::move(data);
    issue_to_barrier(w, l, "an asynchronous store", std::move(transfer), signal, bytes,
                     Proxy::generic);
  });
  return Flow::next;
}

void encode_store_async(Encoding& e, bool reduces) {
  e.take("async");
  e.take_one_of({"weak", "relaxed"});
  e.take("cluster");
  e.take("shared::cluster");
  if (!e.take("mbarrier::complete_tx::bytes")) e.fail("completion is by mbarrier");
  e.out.imm = reduces ? e.take_one_of({"add", "min", "max", "inc", "dec", "and", "or", "xor"}) : -1;
  if (reduces && e.out.imm < 0) e.fail("an operation is missing");
  const int vector = 1 << (e.take_one_of({"v2", "v4"}) + 1);
  const Type type = e.take_type();
  if (reduces && (vector > 1 || !can_reduce(static_cast<Reduction>(e.out.imm), type)))
    e.fail("this reduction is not modelled");
  if (bytes_of(type) != 4 && bytes_of(type) != 8) e.fail("an element has 32 or 64 bits");
  e.expect_operands(3, 3);
  std::vector<Ref> words;
  AddressCode::encode(e, e.operand(0), Space::shared, words);
  AddressCode::encode(e, e.operand(2), Space::shared, words);
  const auto items = elements_of(e.operand(1));
  if (static_cast<int>(items.size()) != vector) e.fail("wrong number of elements");
  for (const Operand& o : items) words.push_back(e.source(o, type));
  e.further(words);
  e.out.small = static_cast<uint8_t>(bytes_of(type));
  e.out.extra = static_cast<uint32_t>(type);
  e.out.run = store_async;
}

}  // namespace

void add_async_copy_opcodes(Opcodes& ops) {
  ops["cp.async"] = cp_async;
  ops["cp.reduce"] = encode_reduce_bulk;
  ops["st.async"] = [](Encoding& e) { encode_store_async(e, false); };
  ops["red.async"] = [](Encoding& e) { encode_store_async(e, true); };
}

}  // namespace ptx
