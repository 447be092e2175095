// Branches, returns, exits.
#include "barriers.h"
#include "decoder.h"
#include "encoding.h"
#include "error.h"
#include "lanes.h"

namespace ptx {
namespace {

// The lanes of the mask go to target, the others of the running group behind the instruction.
Flow jump(Warp& w, Mask mask, uint32_t target) {
  if (mask == w.active) {
    w.pc = target;
    return Flow::jumped;
  }
  w.groups.push_back({w.pc + 1, w.active & ~mask});
  w.active = mask;
  w.pc = target;
  return Flow::regroup;
}

// Each lane of the mask goes to its own target.
template <class Target>
Flow scatter(Warp& w, Mask mask, Target target) {
  const Mask stays = w.active & ~mask;
  if (stays) w.groups.push_back({w.pc + 1, stays});
  w.active = 0;
  for (Mask left = mask; left;) {
    const uint32_t to = target(__builtin_ctz(left));
    Mask same = 0;
    for_each_lane(left, [&](int l) { same |= Mask{target(l) == to} << l; });
    w.groups.push_back({to, same});
    left &= ~same;
  }
  return Flow::regroup;
}

Flow branch(Warp& w, const Instr& in, Mask mask) {
  return jump(w, mask, in.target);
}

void bra(Encoding& e) {
  e.take("uni");
  e.expect_operands(1, 1);
  const Operand& o = e.operand(0);
  if (o.kind != Operand::name) e.fail("a label is expected");
  e.decoder().refer_to_label(o.word, e.statement().line);
  e.out.run = branch;
}

// target: the table
Flow branch_indexed(Warp& w, const Instr& in, Mask mask) {
  const uint32_t* index = w.in<uint32_t>(in.a);
  const auto& table = program_of(w).branch_tables[in.target];
  for_each_lane(mask, [&](int l) {
    if (index[l] >= table.size())
      throw Fault(Fault::trap,
                  "index " + std::to_string(index[l]) + " of a table of " +
                      std::to_string(table.size()) + " branch targets",
                  l);
  });
  return scatter(w, mask, [&](int l) { return table[index[l]]; });
}

void brx(Encoding& e) {
  if (!e.take("idx")) e.fail("only brx.idx is modelled");
  e.take("uni");
  e.expect_operands(2, 2);
  e.out.a = e.source(0, Type::u32);
  const Symbol* table = e.decoder().find(e.operand(1).word);
  if (!table || table->kind != Symbol::targets) e.fail("a list of branch targets is expected");
  e.out.target = static_cast<uint32_t>(table->address);
  e.out.run = branch_indexed;
}

Flow exit_lanes(Warp& w, const Instr&, Mask mask) {
  w.exit(mask);
  lanes_exited(w, mask);
  ++w.pc;  // where lanes with a false guard go on
  return Flow::regroup;
}

Flow return_lanes(Warp& w, const Instr& in, Mask mask) {
  const uint32_t* to = w.in<uint32_t>(in.a);
  return scatter(w, mask, [=](int l) { return to[l]; });
}

void exit(Encoding& e) {
  e.expect_operands(0, 0);
  e.out.run = exit_lanes;
}

void ret(Encoding& e) {
  e.take("uni");
  if (e.decoder().in_kernel()) return exit(e);
  e.expect_operands(0, 0);
  e.out.a = e.decoder().return_pc();
  e.out.run = return_lanes;
}

[[noreturn]] Flow trap(Warp&, const Instr&, Mask) {
  throw Fault(Fault::trap, "the kernel executed a trap");
}

Flow nothing(Warp&, const Instr&, Mask) {
  return Flow::next;
}

}  // namespace

void add_control_opcodes(Opcodes& ops) {
  ops["bra"] = bra;
  ops["brx"] = brx;
  ops["ret"] = ret;
  ops["exit"] = exit;
  ops["trap"] = [](Encoding& e) {
    e.expect_operands(0, 0);
    e.out.run = trap;
  };
  ops["nanosleep"] = [](Encoding& e) {
    e.source(0, e.take_type());
    e.expect_operands(1, 1);
    e.out.run = nothing;
  };
}

}  // namespace ptx
