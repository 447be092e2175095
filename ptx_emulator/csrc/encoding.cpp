#include "encoding.h"

#include <algorithm>
#include <cstring>

#include "decoder.h"
#include "wgmma_state.h"

namespace ptx {

Encoding::Encoding(Decoder& decoder, const Statement& statement, Instr& instr)
    : out(instr), decoder_(decoder), statement_(statement) {
  std::string_view rest = statement.word;
  opcode_ = rest.substr(0, rest.find('.'));
  for (size_t dot = rest.find('.'); dot != std::string_view::npos; dot = rest.find('.')) {
    rest.remove_prefix(dot + 1);
    const std::string_view modifier = rest.substr(0, rest.find('.'));
    modifiers_.push_back(modifier.substr(0, modifier.find_last_not_of(" \t\r\n") + 1));
  }
}

void Encoding::fail(const std::string& what) const {
  throw Error(what);
}

bool Encoding::take(std::string_view modifier) {
  const auto it = std::find(modifiers_.begin(), modifiers_.end(), modifier);
  if (it == modifiers_.end()) return false;
  modifiers_.erase(it);
  return true;
}

int Encoding::take_one_of(std::initializer_list<std::string_view> modifiers, int otherwise) {
  int index = 0;
  for (std::string_view m : modifiers) {
    if (take(m)) return index;
    ++index;
  }
  return otherwise;
}

Type Encoding::take_type_or_none() {
  for (auto it = modifiers_.begin(); it != modifiers_.end(); ++it)
    if (const auto type = parse_type(*it)) {
      modifiers_.erase(it);
      return *type;
    }
  return Type::none;
}

std::pair<Type, Type> Encoding::peek_types() const {
  Type types[2] = {Type::none, Type::none};
  int found = 0;
  for (std::string_view m : modifiers_)
    if (const auto type = parse_type(m); type && found < 2) types[found++] = *type;
  return {types[0], types[1]};
}

Type Encoding::take_type() {
  const Type type = take_type_or_none();
  if (type == Type::none) fail("a type is missing");
  return type;
}

void Encoding::finish() const {
  if (modifiers_.empty()) return;
  std::string all;
  for (std::string_view m : modifiers_) all += " ." + std::string(m);
  fail("not modelled:" + all);
}

const Operand& Encoding::operand(int i) const {
  if (i >= operands()) fail("an operand is missing");
  return statement_.operands[i];
}

void Encoding::expect_operands(int low, int high) const {
  if (operands() < low || operands() > high) fail("wrong number of operands");
}

Ref Encoding::constant(uint64_t bits, int bytes) {
  return decoder_.constant(bits, bytes);
}

bool Encoding::is_register(const Operand& o) const {
  if (o.kind != Operand::name) return false;
  const Symbol* s = decoder_.find(o.word);
  return s && s->kind == Symbol::reg;
}

Type Encoding::register_type(const Operand& o) const {
  const Symbol* s = o.kind == Operand::name ? decoder_.find(o.word) : nullptr;
  return s && s->kind == Symbol::reg ? s->type : Type::none;
}

Ref Encoding::wide_source(const Operand& o, Type type, int& register_bytes) {
  register_bytes = bytes_of(type);
  if (o.kind == Operand::constant && o.value.symbol.empty()) {
    uint64_t bits = o.value.bits;
    if (o.value.real_bits == 64 && bits_of(type) == 32) {
      double d;
      std::memcpy(&d, &bits, 8);
      const float f = static_cast<float>(d);
      bits = 0;
      std::memcpy(&bits, &f, 4);
    } else if (o.value.real_bits && o.value.real_bits != bits_of(type)) {
      fail("a floating-point constant of another width");
    }
    return constant(bits, register_bytes);
  }
  if (o.kind != Operand::name || o.negated) fail("this operand is not modelled");
  if (o.word == "WARP_SZ") return constant(kLanes, register_bytes);
  if (const auto special = special_register(o.word)) {
    register_bytes = 4;
    return *special * kLanes * sizeof(uint32_t);
  }
  const Symbol* s = decoder_.find(o.word);
  if (!s) fail("unknown name " + std::string(o.word));
  if (s->kind != Symbol::reg) fail(std::string(o.word) + " is no register");
  if (s->type == Type::pred) fail(std::string(o.word) + " is a predicate");
  register_bytes = bytes_of(s->type);
  return s->ref;
}

Ref Encoding::source(const Operand& o, Type type) {
  int register_bytes = 0;
  const Ref ref = wide_source(o, type, register_bytes);
  if (register_bytes != bytes_of(type))
    fail("operand " + std::string(o.word) + " has " + std::to_string(8 * register_bytes) +
         " bits, ." + name_of(type) + " is expected");
  return ref;
}

Ref Encoding::wide_destination(const Operand& o, Type type, int& register_bytes) {
  register_bytes = bytes_of(type);
  if (o.kind != Operand::name || o.negated) fail("a register is expected");
  if (o.word == "_") return kNoRef;
  const Symbol* s = decoder_.find(o.word);
  if (!s || s->kind != Symbol::reg || s->type == Type::pred)
    fail(std::string(o.word) + " is no register");
  register_bytes = bytes_of(s->type);
  return s->ref;
}

Ref Encoding::destination(const Operand& o, Type type) {
  int register_bytes = 0;
  const Ref ref = wide_destination(o, type, register_bytes);
  if (register_bytes != bytes_of(type))
    fail("result " + std::string(o.word) + " has " + std::to_string(8 * register_bytes) +
         " bits, ." + name_of(type) + " is expected");
  return ref;
}

Ref Encoding::predicate(const Operand& o, bool& negated) {
  negated = o.negated;
  const Symbol* s = o.kind == Operand::name ? decoder_.find(o.word) : nullptr;
  if (!s || s->type != Type::pred) fail("a predicate is expected");
  return s->ref;
}

Ref Encoding::predicate_source(const Operand& o, bool& negated) {
  if (o.kind != Operand::constant || o.value.real_bits || !o.value.symbol.empty())
    return predicate(o, negated);
  negated = false;
  return constant(o.value.bits ? ~uint64_t{0} : 0, sizeof(Mask));
}

void Encoding::address(int i) {
  const Operand& o = operand(i);
  if (o.kind != Operand::address) fail("an address is expected");
  if (!o.items.empty()) fail("coordinates in an address are not modelled here");
  out.imm = static_cast<int64_t>(o.value.bits);
  out.a = kNoRef;
  if (o.word.empty()) return;
  const Symbol* s = decoder_.find(o.word);
  if (!s) fail("unknown name " + std::string(o.word));
  if (s->kind == Symbol::reg) {
    out.a = s->ref;
    out.wide_address = bits_of(s->type) == 64;
    if (bits_of(s->type) != 32 && bits_of(s->type) != 64) fail("an address has 32 or 64 bits");
    return;
  }
  if (s->kind == Symbol::targets) fail(std::string(o.word) + " is no variable");
  out.imm += static_cast<int64_t>(s->address);
  if (s->space == Space::shared) {
    out.a = (s->dynamic ? kDynamicShared : kSharedBase) * kLanes * sizeof(uint32_t);
    out.wide_address = false;
  }
  if (out.space == Space::generic || out.space == Space::param) out.space = s->space;
  if (out.space != s->space && !(out.space == Space::global && s->space == Space::constant))
    fail(std::string(o.word) + " is in another state space");
}

uint32_t Encoding::further(const std::vector<Ref>& refs) {
  auto& all = decoder_.program().refs;
  out.more = static_cast<uint32_t>(all.size());
  out.count = static_cast<uint16_t>(refs.size());
  all.insert(all.end(), refs.begin(), refs.end());
  return out.more;
}

uint64_t Encoding::integer(int i) const {
  const Operand& o = operand(i);
  if (o.kind != Operand::constant || o.value.real_bits || !o.value.symbol.empty())
    fail("an integer constant is expected");
  return o.value.bits;
}

std::optional<Special> special_register(std::string_view name) {
  struct Named {
    std::string_view name;
    Special first;
    int axes;  // 3: .x .y .z follow
  };
  constexpr Named kNames[] = {
      {"%tid", kTidX, 3},
      {"%ntid", kNtidX, 3},
      {"%ctaid", kCtaidX, 3},
      {"%nctaid", kNctaidX, 3},
      {"%laneid", kLaneId, 1},
      {"%warpid", kWarpId, 1},
      {"%nwarpid", kNwarpId, 1},
      {"%smid", kSmId, 1},
      {"%nsmid", kNsmId, 1},
      {"%gridid", kGridId, 1},
      {"%lanemask_eq", kLanemaskEq, 1},
      {"%lanemask_le", kLanemaskLe, 1},
      {"%lanemask_lt", kLanemaskLt, 1},
      {"%lanemask_ge", kLanemaskGe, 1},
      {"%lanemask_gt", kLanemaskGt, 1},
      {"%clusterid", kClusterIdX, 3},
      {"%nclusterid", kNclusterIdX, 3},
      {"%cluster_ctaid", kClusterCtaIdX, 3},
      {"%cluster_nctaid", kClusterNctaIdX, 3},
      {"%cluster_ctarank", kClusterCtaRank, 1},
      {"%cluster_nctarank", kClusterNctaRank, 1},
      {"%dynamic_smem_size", kDynamicSmemSize, 1},
      {"%total_smem_size", kTotalSmemSize, 1},
      {"%aggr_smem_size", kAggrSmemSize, 1},
      {"%envreg1", kEnvReg1, 1},
      {"%envreg2", kEnvReg2, 1},
  };
  for (const Named& n : kNames) {
    if (!name.starts_with(n.name)) continue;
    const std::string_view rest = name.substr(n.name.size());
    if (n.axes == 1 && rest.empty()) return n.first;
    if (n.axes == 3 && rest.size() == 2 && rest[0] == '.') {
      if (rest[1] >= 'x' && rest[1] <= 'z') return static_cast<Special>(n.first + (rest[1] - 'x'));
      if (rest[1] == 'w') return kZero;
    }
  }
  return std::nullopt;
}

const Kernel* Program::find(std::string_view name) const {
  for (const Kernel& k : kernels)
    if (k.name == name) return &k;
  return nullptr;
}

std::string Program::source(uint32_t pc) const {
  const InstrInfo& i = info[pc];
  std::string place;
  const auto name = [&](int file) -> std::string {
    for (const auto& [id, path] : module->files)
      if (id == file) return path.substr(path.find_last_of('/') + 1);
    return "file " + std::to_string(file);
  };
  for (int at = i.location; at >= 0; at = module->locations[at].inlined_at) {
    const SourceLocation& l = module->locations[at];
    if (!place.empty()) place += " inlined at ";
    place += name(l.file) + ":" + std::to_string(l.line);
  }
  return place;
}

std::string Program::describe(uint32_t pc) const {
  const InstrInfo& i = info[pc];
  const std::string place = source(pc);
  return (place.empty() ? "" : place + " ") + "(PTX line " + std::to_string(i.line) + ": " +
         std::string(i.opcode) + ")";
}

std::unique_ptr<Program> decode(std::unique_ptr<Module> module,
                                std::vector<Unsupported>& unsupported) {
  auto program = std::make_unique<Program>();
  program->module = std::move(module);
  Decoder(*program, unsupported).run();
  mark_matrix_registers(*program);
  // constant_base() aligns within the vector, which must not move any more.
  auto& constants = program->constants;
  const size_t used = constants.size();
  constants.resize(used + 64);
  const size_t shift = program->constant_base() - constants.data();
  std::memmove(constants.data() + shift, constants.data(), used);
  return program;
}

}  // namespace ptx
