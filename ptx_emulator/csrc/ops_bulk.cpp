// cp.async.bulk and cp.reduce.async.bulk without tensors, and bulk groups.
#include <utility>

#include "bulk.h"

namespace ptx {
namespace {

// Further operands: destination, source, mbarrier, size, CTA mask. small: flags.
enum Flag : uint8_t { kToBarrier = 1, kMulticast = 2, kReduces = 4 };
constexpr int kSizeAt = 3 * AddressCode::kWords;

Flow copy(Warp& w, const Instr& in, Mask mask) {
  const Ref* refs = program_of(w).refs.data() + in.more;
  const AddressCode to(w, refs), from(w, refs + AddressCode::kWords),
      barrier(w, refs + 2 * AddressCode::kWords);
  const uint32_t* size = w.in<uint32_t>(refs[kSizeAt]);
  for_each_lane(mask, [&](int l) {
    const uint64_t target = to(l), source = from(l), signal = barrier(l);
    if ((target | source) % 16)
      throw Fault(Fault::memory, "a bulk copy: " + misaligned(w, target % 16 ? target : source, 16),
                  l);
    if (size[l] % 16)
      throw Fault(
          Fault::memory,
          "a bulk copy of " + std::to_string(size[l]) + " bytes, which is no multiple of 16", l);
    const auto transfer_to = [&](uint64_t address) {
      auto transfer = std::make_shared<Transfer>();
      if (in.small & kReduces) transfer->reduction = static_cast<Reduction>(in.imm);
      transfer->type = static_cast<Type>(in.extra);
      if (size[l]) transfer->add(w, l, address, source, size[l]);
      return transfer;
    };
    if (!(in.small & kToBarrier)) return issue_to_group(w, l, transfer_to(target));
    const uint16_t ctas =
        in.small & kMulticast ? w.in<uint16_t>(refs[kSizeAt + 1])[l] : uint16_t{0};
    bool again = false;
    for_each_destination(w, l, ctas, target, signal, [&](uint64_t address, uint64_t signal_there) {
      auto transfer = transfer_to(address);
      transfer->again = std::exchange(again, true);
      issue_to_barrier(w, l, kBulkName, std::move(transfer), signal_there, size[l]);
    });
  });
  return Flow::next;
}

Flow commit(Warp& w, const Instr&, Mask mask) {
  engines_of(w).bulk.commit(mask);
  return Flow::next;
}

// imm: groups that may be left; small: only the reads must be over
Flow wait(Warp& w, const Instr& in, Mask mask) {
  WarpEngines& engines = engines_of(w);
  const auto allowed = static_cast<uint32_t>(in.imm);
  if (engines.bulk.waiting(mask, allowed, in.small))
    return w.park(Wait::async, mask, w.pc, 0, kBulkKey);
  engines.bulk.note_waited(mask, allowed);
  if (w.clock && engines.bulk_read_agent) {
    const uint32_t time = engines.bulk.time_before(mask, allowed);
    w.machine->races->observe(w, mask, engines.bulk_read_agent, time, mask);
    if (!in.small) w.machine->races->observe(w, mask, engines.bulk_write_agent, time, mask);
  }
  return Flow::next;
}

Flow prefetch(Warp& w, const Instr& in, Mask mask) {
  const Ref* refs = program_of(w).refs.data() + in.more;
  const AddressCode from(w, refs);
  const uint32_t* size = w.in<uint32_t>(refs[AddressCode::kWords]);
  for_each_lane(mask, [&](int l) {
    if ((from(l) | size[l]) % 16)
      throw Fault(Fault::memory, "address and size must be multiples of 16", l);
    if (size[l]) locate(w, from(l), size[l], l, "a prefetch");
  });
  return Flow::next;
}

void encode_prefetch(Encoding& e) {
  if (!e.take("L2") || !e.take("global")) e.fail(".L2.global is expected");
  const bool policy = e.take("L2::cache_hint");
  e.expect_operands(policy ? 3 : 2, policy ? 3 : 2);
  std::vector<Ref> words;
  AddressCode::encode(e, e.operand(0), Space::global, words);
  words.push_back(e.source(1, Type::u32));
  if (policy) e.source(2, Type::b64);
  e.further(words);
  e.out.run = prefetch;
}

void encode_plain(Encoding& e, bool reduces) {
  const bool in_group = e.take("bulk_group");
  const bool to_barrier = e.take("mbarrier::complete_tx::bytes");
  if (in_group == to_barrier) e.fail("a completion mechanism is missing");
  const bool global = e.take("global");
  const bool to_cluster = e.take("shared::cluster"), in_cta = e.take("shared::cta");
  const bool known = in_group ? global && in_cta && !to_cluster
                     : global ? to_cluster != in_cta && !reduces
                              : to_cluster && in_cta;
  if (!known) e.fail("this direction is not modelled");
  const bool multicast = e.take("multicast::cluster");
  if (multicast && !(global && to_cluster)) e.fail("only copies from global memory are multicast");
  const bool policy = e.take("L2::cache_hint");
  if (reduces) {
    e.out.imm = e.take_one_of({"add", "min", "max", "inc", "dec", "and", "or", "xor"});
    if (e.out.imm < 0) e.fail("an operation is missing");
    const bool noftz = e.take("noftz");
    const Type type = e.take_type();
    if (!can_reduce(static_cast<Reduction>(e.out.imm), type)) e.fail("no such reduction");
    if (noftz != (e.out.imm == 0 && (type == Type::f16 || type == Type::bf16)))
      e.fail(".noftz goes with .add of .f16 and .bf16");
    e.out.extra = static_cast<uint32_t>(type);
  }
  const int count = 3 + (to_barrier ? 1 : 0) + (multicast ? 1 : 0) + (policy ? 1 : 0);
  e.expect_operands(count, count);
  std::vector<Ref> words;
  AddressCode::encode(e, e.operand(0), in_group ? Space::global : Space::shared, words);
  AddressCode::encode(e, e.operand(1), global && to_barrier ? Space::global : Space::shared, words);
  if (to_barrier)
    AddressCode::encode(e, e.operand(3), Space::shared, words);
  else
    words.insert(words.end(), {kNoRef, 0, 0, 0});
  words.push_back(e.source(2, Type::u32));
  if (multicast) words.push_back(e.source(4, Type::u16));
  if (policy) e.source(count - 1, Type::b64);
  e.further(words);
  e.out.small = static_cast<uint8_t>((to_barrier ? kToBarrier : 0) | (multicast ? kMulticast : 0) |
                                     (reduces ? kReduces : 0));
  e.out.run = copy;
}

}  // namespace

void issue_to_group(Warp& w, int lane, std::shared_ptr<Transfer> transfer) {
  WarpEngines& engines = engines_of(w);
  const auto op = engines.bulk.issue(Mask{1} << lane).front();
  if (!transfer->pieces.empty()) engines.bulk.note_unread({w.pc, op->group, lane});
  if (w.profile) transfer->note_bytes(w);
  if (w.clock) {
    AsyncOperation access = operation_of(w, Mask{1} << lane);
    access.time = op->time;
    access.agent = agent_of(w, engines.bulk_read_agent, "a bulk copy", Proxy::async);
    transfer->note_reads(w, access, true);
    access.agent = agent_of(w, engines.bulk_write_agent, "a bulk copy", Proxy::async);
    transfer->note_writes(w, access, true);
  }
  if (!is_eager(w)) transfer->poison();
  // The CTA may end once the source has been read.
  run_later(w, w.pc, lane, kBulkName, *w.cta, [&w, transfer = std::move(transfer), op] {
    op->reading = false;
    w.wake(Wait::async, kBulkKey);
    w.machine->later([&w, transfer, op, bytes = transfer->read()] {
      transfer->land(bytes);
      engines_of(w).bulk.finish(*op);
      w.wake(Wait::async, kBulkKey);
    });
  });
}

void encode_bulk(Encoding& e) {
  const bool prefetches = e.take("prefetch");
  if (e.take("tensor"))
    return encode_tensor(e, prefetches ? TensorCopy::prefetch : TensorCopy::copy);
  if (prefetches) return encode_prefetch(e);
  switch (e.take_one_of({"commit_group", "wait_group"})) {
    case 0:
      e.expect_operands(0, 0);
      e.out.run = commit;
      break;
    case 1:
      e.out.small = e.take("read");
      e.expect_operands(1, 1);
      e.out.imm = static_cast<int64_t>(e.integer(0));
      e.out.run = wait;
      break;
    default: encode_plain(e, false);
  }
}

void encode_reduce_bulk(Encoding& e) {
  if (!e.take("reduce") || !e.take("async") || !e.take("bulk"))
    e.fail("only cp.reduce.async.bulk is known");
  e.take("tensor") ? encode_tensor(e, TensorCopy::reduce) : encode_plain(e, true);
}

}  // namespace ptx
