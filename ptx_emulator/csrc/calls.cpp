// Calls of device functions: arguments are copied into the callee's parameters, results back.
#include <algorithm>
#include <cstring>

#include "decoder.h"
#include "warp.h"

namespace ptx {
namespace {

// imm: offset of the source, target: of the destination, extra: bytes
Flow copy_local(Warp& w, const Instr& in, Mask mask) {
  const size_t stride = w.local.size() / kLanes;
  for (int l = 0; l < kLanes; ++l)
    if (mask >> l & 1)
      for (auto* bytes : {&w.local, &w.local_written}) {
        uint8_t* thread = bytes->data() + l * stride;
        std::memcpy(thread + in.target, thread + in.imm, in.extra);
      }
  return Flow::next;
}

// extra: bytes of the register
Flow copy_register(Warp& w, const Instr& in, Mask mask) {
  for (int l = 0; l < kLanes; ++l)
    if (mask >> l & 1)
      std::memcpy(w.out<uint8_t>(in.d) + l * in.extra, w.in<uint8_t>(in.a) + l * in.extra,
                  in.extra);
  return Flow::next;
}

Flow call_function(Warp& w, const Instr& in, Mask mask) {
  for (int l = 0; l < kLanes; ++l)
    if (mask >> l & 1) w.out<uint32_t>(in.d)[l] = w.pc + 1;
  if (mask != w.active) {
    w.groups.push_back({w.pc + 1, w.active & ~mask});
    w.active = mask;
    w.pc = in.target;
    return Flow::regroup;
  }
  w.pc = in.target;
  return Flow::jumped;
}

[[noreturn]] Flow assertion_failed(Warp&, const Instr&, Mask) {
  throw Fault(Fault::trap, "an assertion of the kernel failed (__assertfail)");
}

// Kernels keep printf for what should not happen, so it is an error only where it happens.
[[noreturn]] Flow printed(Warp&, const Instr&, Mask) {
  throw Fault(Fault::unsupported, "the kernel calls printf");
}

}  // namespace

void Decoder::copy_argument(const Statement& s, const Symbol& from, const Symbol& to,
                            uint64_t bytes) {
  Instr copy;
  bool negated = false;
  if (!s.guard.empty()) {
    Operand o;
    o.word = s.guard;
    Encoding e(*this, s, copy);
    copy.guard = e.predicate(o, negated);
    copy.guard_negated = s.guard_negated;
  }
  if (from.kind == Symbol::reg && to.kind == Symbol::reg) {
    copy.run = copy_register;
    copy.a = from.ref;
    copy.d = to.ref;
  } else if (from.kind == Symbol::memory && to.kind == Symbol::memory &&
             from.space == Space::local && to.space == Space::local) {
    copy.run = copy_local;
    copy.imm = static_cast<int64_t>(from.address);
    copy.target = static_cast<uint32_t>(to.address);
  } else {
    throw Error("an argument of this kind is not modelled");
  }
  copy.extra = static_cast<uint32_t>(bytes);
  emit(s, copy);
}

// call{.uni} [(results),] function [, (arguments)]
void Decoder::call(const Statement& s) {
  std::vector<Operand> results, arguments;
  std::string_view callee;
  for (const Operand& o : s.operands) {
    if (o.kind == Operand::list) {
      (callee.empty() ? results : arguments) = o.items;
    } else if (callee.empty()) {
      callee = o.word;
    } else {
      throw Error("indirect calls are not modelled");
    }
  }
  Instr jump;
  if (!s.guard.empty()) {
    Operand o;
    o.word = s.guard;
    o.negated = s.guard_negated;
    Encoding e(*this, s, jump);
    jump.guard = e.predicate(o, jump.guard_negated);
  }
  if (callee == "__assertfail" || callee == "vprintf") {
    jump.run = callee == "vprintf" ? printed : assertion_failed;
    emit(s, jump);
    return;
  }
  const auto it = signatures_.find(callee);
  if (it == signatures_.end()) throw Error("no body of function " + std::string(callee));
  const Signature& sig = it->second;
  if (arguments.size() != sig.params.size() || results.size() != sig.results.size())
    throw Error("wrong number of arguments for " + std::string(callee));
  const auto symbol = [&](const Operand& o, const Symbol& other) {
    if (o.kind == Operand::constant && other.kind == Symbol::reg) {
      Symbol c{Symbol::reg, other.type};
      c.ref = constant(o.value.bits, bytes_of(other.type));
      return c;
    }
    const Symbol* found = o.kind == Operand::name ? find(o.word) : nullptr;
    if (!found) throw Error("unknown argument " + std::string(o.word));
    if (found->kind == Symbol::reg && other.kind == Symbol::reg &&
        bytes_of(found->type) != bytes_of(other.type))
      throw Error("argument " + std::string(o.word) + " has another width than the parameter");
    return *found;
  };
  for (size_t i = 0; i < arguments.size(); ++i)
    copy_argument(s, symbol(arguments[i], sig.params[i]), sig.params[i], sig.param_bytes[i]);
  jump.run = call_function;
  jump.d = sig.return_pc;
  jump.target = sig.entry;
  emit(s, jump);
  for (size_t i = 0; i < results.size(); ++i)
    copy_argument(s, sig.results[i], symbol(results[i], sig.results[i]), sig.result_bytes[i]);
}

}  // namespace ptx
