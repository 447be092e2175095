#include "decoder.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "limits.h"
#include "warp.h"

namespace ptx {

uint64_t bytes_of(const Variable& v) {
  return static_cast<uint64_t>(bytes_of(v.type)) * v.vector * v.elements;
}
uint64_t align_of(const Variable& v) {
  return std::max<uint64_t>(v.align, static_cast<uint64_t>(bytes_of(v.type)) * v.vector);
}

Decoder::Decoder(Program& program, std::vector<Unsupported>& unsupported)
    : program_(program), unsupported_(unsupported) {
  for (auto add : {add_integer_opcodes, add_bit_opcodes, add_float_opcodes, add_compare_opcodes,
                   add_convert_opcodes, add_move_opcodes, add_memory_opcodes, add_atomic_opcodes,
                   add_warp_opcodes, add_control_opcodes, add_barrier_opcodes, add_fence_opcodes,
                   add_mbarrier_opcodes, add_async_copy_opcodes, add_bulk_opcodes,
                   add_matrix_opcodes, add_wgmma_opcodes})
    add(opcodes_);
  scopes_.push_back({-1});
  program_.register_bytes = kSpecialBytes;
  program_.constants.reserve(4096);
}

void Decoder::run() {
  const Module& m = *program_.module;
  const int architecture = architecture_of(m.target);
  if (architecture == 0 || architecture > kNewestArchitecture)
    note(m.target_line, m.target, "targets are modelled up to sm_90a");
  declare_globals();
  std::vector<const Function*> order;
  std::map<std::string_view, int> state;
  for (const Function& f : m.functions)
    if (!f.is_extern) order_functions(f, order, state);
  for (const Function* f : order)
    if (!f->is_entry) declare_signature(*f);
  for (const Function* f : order)
    if (!f->is_entry) function(*f);
  // A kernel needs the registers of all functions, and none of other kernels'.
  const uint64_t registers = program_.register_bytes, local = program_.local_bytes;
  for (const Function* f : order) {
    if (!f->is_entry) continue;
    program_.register_bytes = registers;
    program_.local_bytes = local;
    function(*f);
  }
}

void Decoder::note(int line, std::string_view text, const std::string& reason) {
  unsupported_.push_back({line, std::string(text), reason});
}

// Callees first: registers are allotted once per function, which recursion would break, and lane
// groups run lowest pc first, so that lanes in a callee catch up with their caller's others.
void Decoder::order_functions(const Function& f, std::vector<const Function*>& order,
                              std::map<std::string_view, int>& state) {
  int& mine = state[f.name];
  if (mine == 2) return;
  if (mine == 1) return note(f.line, f.name, "recursive functions are not modelled");
  mine = 1;
  for (const Statement& s : f.body) {
    if (s.kind != Statement::instruction || !s.word.starts_with("call")) continue;
    for (const Operand& o : s.operands)
      for (const Function& g : program_.module->functions)
        if (o.kind == Operand::name && g.name == o.word && !g.is_extern)
          order_functions(g, order, state);
  }
  state[f.name] = 2;
  order.push_back(&f);
}

uint64_t Decoder::in_shared(const Variable& v) {
  if (v.is_extern) {
    shared_align_ = std::max(shared_align_, align_of(v));
    return 0;
  }
  uint64_t& used = function_ && function_->is_entry ? kernel_shared_ : module_shared_;
  const uint64_t at = align_up(used, align_of(v));
  used = at + bytes_of(v);
  return at;
}

uint64_t Decoder::in_local(const Variable& v) {
  const uint64_t at = align_up(program_.local_bytes, std::max<uint64_t>(align_of(v), 4));
  program_.local_bytes = at + bytes_of(v);
  return at;
}

void Decoder::declare_globals() {
  Module& m = *program_.module;
  for (const Variable& v : m.variables) {
    Symbol s{Symbol::memory, v.type};
    s.space = v.space;
    if (v.space == Space::shared) {
      s.dynamic = v.is_extern;
      s.address = in_shared(v);
    } else if (v.is_extern) {
      note(v.line, v.name, "an external variable");
    } else {
      // An allocation's own guard keeps neighbours apart: one block per variable.
      const uint64_t align = std::max<uint64_t>(align_of(v), 256);
      Program::GlobalBlock block{v.name, std::make_unique<uint8_t[]>(bytes_of(v) + align), 0,
                                 bytes_of(v), v.space == Space::constant};
      block.address = align_up(reinterpret_cast<uintptr_t>(block.bytes.get()), align);
      s.address = block.address;
      program_.globals.push_back(std::move(block));
    }
    scopes_[0].symbols[v.name] = s;
  }
  for (const Variable& v : m.variables)
    if (!v.initial.empty() && !v.is_extern && v.space != Space::shared)
      fill(reinterpret_cast<uint8_t*>(scopes_[0].symbols[v.name].address), v);
}

void Decoder::fill(uint8_t* out, const Variable& v) {
  const int size = bytes_of(v.type);
  for (const Constant& c : v.initial) {
    uint64_t bits = c.bits;
    if (!c.symbol.empty()) {
      const Symbol* s = find(c.symbol);
      if (!s || s->kind != Symbol::memory || s->space == Space::shared)
        return note(v.line, v.name, "initialised with " + std::string(c.symbol));
      bits += s->address;
    } else if (c.real_bits == 64 && v.type == Type::f32) {
      double d;
      std::memcpy(&d, &bits, 8);
      const float f = static_cast<float>(d);
      std::memcpy(&bits, &f, 4);
    }
    std::memcpy(out, &bits, size);
    out += size;
  }
}

void Decoder::declare_signature(const Function& f) {
  Signature& sig = signatures_[f.name];
  const auto declare = [&](const std::vector<Variable>& all, std::vector<Symbol>& symbols,
                           std::vector<uint64_t>& bytes) {
    for (const Variable& v : all) {
      Symbol s{v.space == Space::reg ? Symbol::reg : Symbol::memory, v.type};
      // Parameters of a function lie in the local memory of its thread.
      s.space = v.space == Space::reg ? Space::reg : Space::local;
      if (s.kind == Symbol::reg) {
        s.ref = allocate(v.type);
      } else {
        s.address = in_local(v);
      }
      symbols.push_back(s);
      bytes.push_back(bytes_of(v));
    }
  };
  declare(f.params, sig.params, sig.param_bytes);
  declare(f.results, sig.results, sig.result_bytes);
  sig.return_pc = allocate(Type::u32);
}

void Decoder::function(const Function& f) {
  function_ = &f;
  function_index_ = static_cast<int>(&f - program_.module->functions.data());
  kernel_shared_ = module_shared_;
  scope_ = static_cast<int>(scopes_.size());
  scopes_.push_back({0});
  const uint32_t entry = static_cast<uint32_t>(program_.code.size());
  if (f.is_entry) {
    kernel_header(f);
    program_.kernels.back().entry = entry;
  } else {
    Signature& sig = signatures_[f.name];
    sig.entry = entry;
    for (size_t i = 0; i < f.params.size(); ++i)
      scopes_[scope_].symbols[f.params[i].name] = sig.params[i];
    for (size_t i = 0; i < f.results.size(); ++i)
      scopes_[scope_].symbols[f.results[i].name] = sig.results[i];
  }
  body(f);
  // Falling off the end returns.
  Statement end{Statement::instruction, f.line};
  end.word = "ret";
  instruction(end);
  resolve_labels();
  if (f.is_entry) {
    Kernel& kernel = program_.kernels.back();
    kernel.static_shared = kernel_shared_;
    kernel.shared_align = shared_align_;
    kernel.register_bytes = program_.register_bytes;
    kernel.local_bytes = align_up(program_.local_bytes, 16);
  }
  function_ = nullptr;
}

void Decoder::kernel_header(const Function& f) {
  Kernel k;
  k.name = f.name;
  k.source = &f;
  for (const Variable& v : f.params) {
    const uint64_t at = align_up(k.param_bytes, align_of(v));
    k.params.push_back({v.name, at, bytes_of(v)});
    k.param_bytes = at + bytes_of(v);
    Symbol s{Symbol::kernel_param, v.type};
    s.space = Space::param;
    s.address = at;
    scopes_[scope_].symbols[v.name] = s;
  }
  program_.kernels.push_back(std::move(k));
}

void Decoder::body(const Function& f) {
  for (const Statement& s : f.body) {
    switch (s.kind) {
      case Statement::open:
        scopes_.push_back({scope_});
        scope_ = static_cast<int>(scopes_.size()) - 1;
        break;
      case Statement::close: scope_ = scopes_[scope_].parent; break;
      case Statement::label:
        if (!scopes_[scope_].labels.try_emplace(s.word, program_.code.size()).second)
          fail_at(s.line, "label " + std::string(s.word) + " is defined twice");
        break;
      case Statement::declare: declare(*s.variable, f); break;
      case Statement::targets: {
        // The list's own label stands just before it.
        const auto here = static_cast<uint32_t>(program_.code.size());
        std::string_view name;
        for (const auto& [label, pc] : scopes_[scope_].labels)
          if (pc == here && (&s)[-1].kind == Statement::label && (&s)[-1].word == label)
            name = label;
        Symbol table{Symbol::targets};
        table.address = program_.branch_tables.size();
        program_.branch_tables.emplace_back();
        for (const Operand& o : s.operands)
          fixups_.push_back({scope_, o.word, 0, static_cast<int>(table.address), s.line});
        scopes_[scope_].symbols[name] = table;
        break;
      }
      case Statement::instruction: instruction(s); break;
    }
  }
}

void Decoder::declare(const Variable& v, const Function& f) {
  if (v.space == Space::reg) {
    if (v.count == 0) {
      Symbol s{Symbol::reg, v.type};
      s.ref = allocate(v.type);
      add_symbol(v.name, s, v.line);
    } else {
      scopes_[scope_].families.push_back({v.name, {v.type, v.count}});
    }
    return;
  }
  Symbol s{Symbol::memory, v.type};
  s.space = v.space;
  if (v.space == Space::shared) {
    s.dynamic = v.is_extern;
    s.address = in_shared(v);
  } else if (v.space == Space::local || v.space == Space::param) {
    s.space = Space::local;
    s.address = in_local(v);
  } else {
    note(v.line, v.name,
         std::string("a ") + name_of(v.space) + " variable inside " + std::string(f.name));
  }
  add_symbol(v.name, s, v.line);
}

void Decoder::add_symbol(std::string_view name, const Symbol& symbol, int line) {
  if (!scopes_[scope_].symbols.try_emplace(name, symbol).second)
    fail_at(line, std::string(name) + " is declared twice");
}

const Symbol* Decoder::find(std::string_view name) {
  size_t digits = name.size();
  while (digits > 0 && std::isdigit(static_cast<unsigned char>(name[digits - 1]))) --digits;
  int index = -1;
  std::from_chars(name.data() + digits, name.data() + name.size(), index);
  for (int s = scope_; s >= 0; s = scopes_[s].parent) {
    auto& symbols = scopes_[s].symbols;
    if (const auto it = symbols.find(name); it != symbols.end()) return &it->second;
    // A register of a family gets its place at its first use: most of them have none.
    for (const auto& [prefix, family] : scopes_[s].families) {
      if (index < 0 || index >= family.count || prefix != name.substr(0, digits)) continue;
      Symbol symbol{Symbol::reg, family.type};
      symbol.ref = allocate(family.type);
      return &(symbols[name] = symbol);
    }
  }
  return nullptr;
}

Ref Decoder::allocate(Type type) {
  uint64_t& used = program_.register_bytes;
  const uint64_t bytes = type == Type::pred ? sizeof(Mask) : uint64_t{kLanes} * bytes_of(type);
  used = align_up(used, std::min<uint64_t>(bytes, 64));
  const Ref ref = static_cast<Ref>(used);
  used += bytes;
  if (used >= kInConstants) throw Error("too many registers");
  return ref;
}

Ref Decoder::constant(uint64_t bits, int bytes) {
  if (bytes < 8) bits &= (uint64_t{1} << (8 * bytes)) - 1;
  const auto [it, fresh] = constants_.try_emplace({bits, bytes}, 0);
  if (fresh) {
    auto& all = program_.constants;
    const size_t at = align_up(all.size(), 64);
    all.resize(at + static_cast<size_t>(kLanes) * bytes);
    for (int l = 0; l < kLanes; ++l) std::memcpy(&all[at + l * bytes], &bits, std::min(bytes, 8));
    it->second = kInConstants | static_cast<Ref>(at);
  }
  return it->second;
}

void Decoder::add_registers(const Operand& o, std::vector<Ref>& out) {
  for (const Operand& item : o.items) add_registers(item, out);
  if (o.kind != Operand::name && o.kind != Operand::address) return;
  const Symbol* s = o.word.empty() ? nullptr : find(o.word);
  if (!s || s->kind != Symbol::reg || s->type == Type::pred) return;
  out.push_back(s->ref);
  program_.register_names.try_emplace(s->ref, o.word);
}

uint32_t Decoder::emit(const Statement& s, const Instr& instr) {
  program_.code.push_back(instr);
  program_.info.push_back({s.line, s.location, function_index_, s.word});
  program_.operands.emplace_back();
  for (const Operand& o : s.operands) add_registers(o, program_.operands.back());
  return static_cast<uint32_t>(program_.code.size()) - 1;
}

void Decoder::refer_to_label(std::string_view label, int line) {
  fixups_.push_back({scope_, label, static_cast<uint32_t>(program_.code.size()), -1, line});
}

void Decoder::resolve_labels() {
  for (const Fixup& f : fixups_) {
    const uint32_t* pc = nullptr;
    for (int s = f.scope; s > 0 && !pc; s = scopes_[s].parent)
      if (const auto it = scopes_[s].labels.find(f.label); it != scopes_[s].labels.end())
        pc = &it->second;
    if (!pc) fail_at(f.line, "unknown label " + std::string(f.label));
    if (f.table >= 0) {
      program_.branch_tables[f.table].push_back(*pc);
    } else {
      program_.code[f.pc].target = *pc;
    }
  }
  fixups_.clear();
}

void Decoder::instruction(const Statement& s) {
  const std::string_view base = s.word.substr(0, s.word.find('.'));
  if (base == "call") {
    try {
      call(s);
    } catch (const Error& e) {
      note(s.line, s.word, e.what());
    }
    return;
  }
  // A family may have a first modifier of its own: "cp.async".
  auto encoder = opcodes_.find(s.word.substr(0, s.word.find('.', base.size() + 1)));
  if (encoder == opcodes_.end()) encoder = opcodes_.find(base);
  if (encoder == opcodes_.end()) {
    note(s.line, s.word, "unknown instruction");
    return;
  }
  Instr instr;
  try {
    Encoding e(*this, s, instr);
    if (!s.guard.empty()) {
      Operand o;
      o.word = s.guard;
      o.negated = s.guard_negated;
      instr.guard = e.predicate(o, instr.guard_negated);
    }
    encoder->second(e);
    e.finish();
  } catch (const Error& e) {
    note(s.line, s.word, e.what());
  }
  emit(s, instr);
}

}  // namespace ptx
