#include "async_copy.h"

#include <cstring>

#include "formats.h"
#include "profile.h"

namespace ptx {
namespace {

template <class T>
void fill_with(uint8_t* to, uint32_t bytes, T value) {
  for (uint32_t i = 0; i + sizeof(T) <= bytes; i += sizeof(T))
    std::memcpy(to + i, &value, sizeof(T));
}

void fill_bytes(uint8_t* to, uint32_t bytes, Fill fill) {
  switch (fill) {
    case Fill::zero: std::memset(to, 0, bytes); break;
    case Fill::nan16:
    case Fill::nan_bf16: fill_with<uint16_t>(to, bytes, 0x7fff); break;
    case Fill::nan32: fill_with<uint32_t>(to, bytes, 0x7fffffff); break;
    case Fill::nan64: fill_with<uint64_t>(to, bytes, 0x7fffffffffffffff); break;
  }
}

// To nearest, ties to even, as far as is known.
uint32_t tf32_of(uint32_t bits) {
  if ((bits & 0x7f800000) == 0x7f800000) return bits;
  return (bits + 0xfff + (bits >> 13 & 1)) & 0xffffe000;
}

uint32_t convert(uint32_t bits, OnLoad how) {
  if (how != OnLoad::tf32 && !(bits & 0x7f800000)) bits &= 0x80000000;
  return how == OnLoad::flush ? bits : tf32_of(bits);
}

}  // namespace

void Transfer::add(Warp& w, int lane, uint64_t to, uint64_t from, uint32_t bytes) {
  const Block& target = locate(w, to, bytes, lane, "an asynchronous write");
  if (target.read_only)
    throw Fault(Fault::memory, "a write to " + target.name + ", which is constant", lane);
  if (reduction && !target.all_written(to, bytes)) never_written(w, to, bytes, lane);
  const uint8_t* source = nullptr;
  const Block* source_block = nullptr;
  if (from) {
    const Block& block = locate(w, from, bytes, lane, "an asynchronous read");
    if (!block.all_written(from, bytes)) never_written(w, from, bytes, lane);
    source = block.at(from);
    source_block = &block;
  }
  target.set_written(to, bytes);
  // Gathered rows lie where no hardware prefetches their cells.
  if (target.cells) __builtin_prefetch(target.cell(to), 1);
  if (source_block && source_block->cells) __builtin_prefetch(source_block->cell(from), 1);
  pieces.push_back(
      {target.at(to), source, bytes, static_cast<uint8_t>(lane), &target, source_block});
}

template <class F>
void Transfer::for_each_piece(AsyncOperation& op, F f) const {
  const Mask lanes = op.view.lanes;
  for (const Piece& p : pieces) {
    op.view.lanes = Mask{1} << p.lane;
    if (lanes & op.view.lanes) f(p, op.view.lanes);
  }
}

void Transfer::note_reads(Warp& w, AsyncOperation op, bool by_lane) const {
  for_each_piece(op, [&](const Piece& p, Mask lane) {
    if (p.source)
      w.machine->races->access(op, *p.source, p.source->begin + (p.from - p.source->data), p.bytes,
                               false, false, by_lane ? lane : 0);
  });
}

void Transfer::note_writes(Warp& w, AsyncOperation op, bool by_lane) const {
  for_each_piece(op, [&](const Piece& p, Mask lane) {
    w.machine->races->access(op, *p.target, p.target->begin + (p.to - p.target->data), p.bytes,
                             true, reduction.has_value(), by_lane ? lane : 0);
  });
}

void Transfer::note_bytes(Warp& w) const {
  Moved moved;
  moved.from_registers = !data.empty();
  moved.again = again;
  for (const Piece& p : pieces) {
    const uint64_t from = p.source ? p.source->begin + (p.from - p.source->data) : 0;
    moved.parts.push_back(
        {p.source, p.target, from, p.target->begin + (p.to - p.target->data), p.bytes});
  }
  w.profile->copy(w, moved);
}

AsyncOperation operation_of(Warp& w, Mask lanes) {
  AsyncOperation op{};
  op.pc = w.pc;
  if (w.clock) op.view = w.machine->races->publish(w, lanes);
  return op;
}

void issue_to_barrier(Warp& w, int lane, const char* what, std::shared_ptr<Transfer> transfer,
                      uint64_t barrier, uint32_t bytes, Proxy proxy) {
  Mbarrier& b = use_mbarrier(w, barrier, lane);
  if (w.profile) transfer->note_bytes(w);
  if (w.clock) {
    AsyncOperation op = operation_of(w, Mask{1} << lane);
    op.agent = b.agent;
    if (proxy == Proxy::generic) {
      if (!b.store_agent)
        b.store_agent = w.machine->races->new_agent(
            owner_of(w, barrier),
            "an asynchronous store to the mbarrier at " + hex(barrier - kSharedWindow), proxy);
      op.agent = b.store_agent;
    } else if (&owner_of(w, barrier) != w.cta) {
      check_remote_copy(w, b, op.view, lane);
    }
    op.time = b.time();
    transfer->note_reads(w, op, false);
    transfer->note_writes(w, op, false);
  }
  if (!is_eager(w)) transfer->poison();
  run_later(w, w.pc, lane, what, owner_of(w, barrier),
            [&w, lane, transfer = std::move(transfer), barrier, bytes, phase = b.phase] {
              Mbarrier& there = mbarrier_at(w, barrier, lane);
              if (there.phase != phase && w.clock)
                throw Fault(Fault::race, "the phase in which it was issued, " +
                                             std::to_string(phase) +
                                             ", is over, without its bytes: " + there.describe());
              transfer->land();
              complete_tx(w, there, bytes, lane);
            });
}

void Transfer::poison() const {
  if (reduction) return;
  for (const Piece& p : pieces) std::memset(p.to, 0xff, p.bytes);
}

void Transfer::write(const Piece& p, const uint8_t* from) const {
  if (!from)
    fill_bytes(p.to, p.bytes, fill);
  else if (reduction)
    reduce(*reduction, type, p.to, from, p.bytes);
  else if (on_load == OnLoad::nothing)
    std::memcpy(p.to, from, p.bytes);
  else
    for (uint32_t i = 0; i + 4 <= p.bytes; i += 4) {
      uint32_t bits;
      std::memcpy(&bits, from + i, 4);
      bits = convert(bits, on_load);
      std::memcpy(p.to + i, &bits, 4);
    }
}

void Transfer::land() const {
  for (const Piece& p : pieces) write(p, p.from);
}

std::vector<uint8_t> Transfer::read() const {
  std::vector<uint8_t> bytes;
  for (const Piece& p : pieces)
    if (p.from) bytes.insert(bytes.end(), p.from, p.from + p.bytes);
  return bytes;
}

void Transfer::land(const std::vector<uint8_t>& bytes) const {
  const uint8_t* from = bytes.data();
  for (const Piece& p : pieces) {
    write(p, p.from ? from : nullptr);
    if (p.from) from += p.bytes;
  }
}

}  // namespace ptx
