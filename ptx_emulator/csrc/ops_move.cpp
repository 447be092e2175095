// mov, conversion of addresses.
#include "address.h"
#include "decoder.h"
#include "encoding.h"
#include "lanes.h"

namespace ptx {

void encode_predicate_move(Encoding& e);

namespace {

struct Wide {  // a 128-bit register
  uint64_t low, high;
};

template <class T>
Flow copy(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  write_lanes(w.out<T>(in.d), mask, [=](int l) { return a[l]; });
  return Flow::next;
}
Handler copy_of(Encoding& e, int bytes) {
  switch (bytes) {
    case 1: return &copy<uint8_t>;
    case 2: return &copy<uint16_t>;
    case 4: return &copy<uint32_t>;
    case 8: return &copy<uint64_t>;
    case 16: return &copy<Wide>;
    default: e.fail("not modelled for this type");
  }
}

// d = the base in a plus imm; a is a 32-bit address of shared memory
template <class T>
Flow shared_address(Warp& w, const Instr& in, Mask mask) {
  const uint32_t* a = w.in<uint32_t>(in.a);
  const uint32_t offset = static_cast<uint32_t>(in.imm);
  const uint64_t window = in.small ? kSharedWindow : 0;
  write_lanes(w.out<T>(in.d), mask,
              [=](int l) { return static_cast<T>(window + (a[l] + offset)); });
  return Flow::next;
}

enum Clock : uint8_t { kLow, kHigh, kWhole };
template <class T>
Flow read_clock(Warp& w, const Instr& in, Mask mask) {
  const uint64_t now = elapsed(w);
  const T value = static_cast<T>(in.small == kHigh ? now >> 32 : now);
  write_lanes(w.out<T>(in.d), mask, [=](int) { return value; });
  return Flow::next;
}

// The elements of a register of N parts of type T, and that register. A lane's elements lie
// together in the register, and apart in the elements' own.
template <class T, int N>
Flow pack(Warp& w, const Instr& in, Mask mask) {
  const Ref parts[4] = {in.a, in.b, in.c, in.extra};
  T out[kLanes * N];
  for (int i = 0; i < N; ++i) {
    const T* a = w.in<T>(parts[i]);
    for (int l = 0; l < kLanes; ++l) out[N * l + i] = a[l];
  }
  T* d = w.out<T>(in.d);
  for (int l = 0; l < kLanes; ++l)
    for (int i = 0; i < N; ++i) d[N * l + i] = mask >> l & 1 ? out[N * l + i] : d[N * l + i];
  return Flow::next;
}
// Two parts of an integer type, which vectorises.
template <class T, class Whole>
Flow pack_two(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  const T* b = w.in<T>(in.b);
  write_lanes(w.out<Whole>(in.d), mask, [=](int l) {
    return static_cast<Whole>(Whole{b[l]} << (8 * sizeof(T)) | Whole{a[l]});
  });
  return Flow::next;
}
template <class T, int N>
Flow unpack(Warp& w, const Instr& in, Mask mask) {
  const Ref parts[4] = {in.d, in.b, in.c, in.extra};
  T from[kLanes * N];
  std::memcpy(from, w.in<T>(in.a), sizeof(from));
  for (int i = 0; i < N; ++i)
    if (parts[i] != kNoRef)
      write_lanes(w.out<T>(parts[i]), mask, [&](int l) { return from[N * l + i]; });
  return Flow::next;
}
template <int N>
Handler vector_of(Encoding& e, int bytes, bool packs) {
  switch (bytes) {
    case 1: return packs ? &pack<uint8_t, N> : &unpack<uint8_t, N>;
    case 2: return packs ? &pack<uint16_t, N> : &unpack<uint16_t, N>;
    case 4: return packs ? &pack<uint32_t, N> : &unpack<uint32_t, N>;
    case 8: return packs ? &pack<uint64_t, N> : &unpack<uint64_t, N>;
    default: e.fail("a vector of this type is not modelled");
  }
}

void move_vector(Encoding& e, Type t, bool packs) {
  const Operand& v = e.operand(packs ? 1 : 0);
  const int n = static_cast<int>(v.items.size());
  if (n != 2 && n != 4) e.fail("vectors have 2 or 4 elements");
  const int bytes = bytes_of(t) / n;
  if (n * bytes != bytes_of(t) || !is_untyped(t)) e.fail("a vector that does not fit the type");
  const Type part = bytes == 1   ? Type::b8
                    : bytes == 2 ? Type::b16
                    : bytes == 4 ? Type::b32
                                 : Type::b64;
  Ref parts[4] = {kNoRef, kNoRef, kNoRef, kNoRef};
  for (int i = 0; i < n; ++i)
    parts[i] = packs ? e.source(v.items[i], part) : e.destination(v.items[i], part);
  const Ref whole = packs ? e.destination(0, t) : e.source(1, t);
  if (whole == kNoRef) e.fail("a register is expected");
  e.out.d = packs ? whole : parts[0];
  e.out.a = packs ? parts[0] : whole;
  e.out.b = parts[1];
  e.out.c = parts[2];
  e.out.extra = parts[3];
  if (packs && n == 2 && bytes == 4)
    e.out.run = &pack_two<uint32_t, uint64_t>;
  else if (packs && n == 2 && bytes == 2)
    e.out.run = &pack_two<uint16_t, uint32_t>;
  else
    e.out.run = n == 2 ? vector_of<2>(e, bytes, packs) : vector_of<4>(e, bytes, packs);
}

// A clock counts steps of the machine; a step counts as a cycle and as a nanosecond.
bool move_clock(Encoding& e, Type t, std::string_view name) {
  if (name == "%clock" || name == "%clock_hi" || name == "%globaltimer_lo" ||
      name == "%globaltimer_hi") {
    e.out.d = e.destination(0, t);
    if (bits_of(t) != 32) e.fail(std::string(name) + " has 32 bits");
    e.out.small = name.ends_with("_hi") ? kHigh : kLow;
    e.out.run = &read_clock<uint32_t>;
  } else if (name == "%clock64" || name == "%globaltimer") {
    e.out.d = e.destination(0, t);
    if (bits_of(t) != 64) e.fail(std::string(name) + " has 64 bits");
    e.out.small = kWhole;
    e.out.run = &read_clock<uint64_t>;
  } else {
    return false;
  }
  return true;
}

// The variable that an operand names, with the offset that goes with it; null if it names none.
const Symbol* variable(Encoding& e, const Operand& o, uint64_t& offset) {
  std::string_view name;
  if (o.kind == Operand::name) {
    name = o.word;
    offset = 0;
  } else if (o.kind == Operand::constant && !o.value.symbol.empty() && !o.value.generic) {
    name = o.value.symbol;
    offset = o.value.bits;
  } else {
    return nullptr;
  }
  const Symbol* s = e.decoder().find(name);
  if (s && s->kind == Symbol::reg && o.kind == Operand::constant)
    e.fail("a register with an offset");
  return s && (s->kind == Symbol::memory || s->kind == Symbol::kernel_param) ? s : nullptr;
}

void move_address(Encoding& e, Type t, const Symbol& s, uint64_t offset, bool generic) {
  if (bits_of(t) != 32 && bits_of(t) != 64) e.fail("an address has 32 or 64 bits");
  e.out.d = e.destination(0, t);
  const bool wide = bits_of(t) == 64;
  if (generic && !wide) e.fail("a generic address has 64 bits");
  if (s.space == Space::shared) {
    e.out.a = (s.dynamic ? kDynamicShared : kSharedBase) * kLanes * sizeof(uint32_t);
    e.out.imm = static_cast<int64_t>(s.address + offset);
    e.out.small = generic;
    e.out.run = wide ? &shared_address<uint64_t> : &shared_address<uint32_t>;
    return;
  }
  if (!wide && (s.space == Space::global || s.space == Space::constant))
    e.fail("an address of this space has 64 bits");
  uint64_t address = s.address + offset;
  if (generic && s.space == Space::local) address += kLocalWindow;
  if (generic && s.kind == Symbol::kernel_param) address += kParamWindow;
  e.out.a = e.constant(address, bytes_of(t));
  e.out.run = copy_of(e, bytes_of(t));
}

void mov(Encoding& e) {
  const Type t = e.take_type();
  e.expect_operands(2, 2);
  const Operand& d = e.operand(0);
  const Operand& a = e.operand(1);
  if (t == Type::pred) return encode_predicate_move(e);
  const bool number = is_integer(t) || t == Type::f32 || t == Type::f64;
  if ((!number && !is_untyped(t)) || bits_of(t) < 16) e.fail("not modelled for this type");
  if (d.kind == Operand::vector) return move_vector(e, t, false);
  if (a.kind == Operand::vector) return move_vector(e, t, true);
  if (a.kind == Operand::name && move_clock(e, t, a.word)) return;
  uint64_t offset = 0;
  if (const Symbol* s = variable(e, a, offset)) return move_address(e, t, *s, offset, false);
  e.out.d = e.destination(0, t);
  e.out.a = e.source(1, t);
  if (e.out.d == kNoRef) e.fail("a register is expected");
  e.out.run = copy_of(e, bytes_of(t));
}

Space take_space(Encoding& e) {
  switch (e.take_one_of({"const", "global", "local", "shared", "shared::cta", "shared::cluster",
                         "param", "param::entry"})) {
    case 0: return Space::constant;
    case 1: return Space::global;
    case 2: return Space::local;
    case 3:
    case 4:
    case 5: return Space::shared;
    case 6:
    case 7: return Space::param;
    default: e.fail("a state space is missing");
  }
}
uint64_t window_of(Space space) {
  return space == Space::shared  ? kSharedWindow
         : space == Space::local ? kLocalWindow
         : space == Space::param ? kParamWindow
                                 : 0;
}

Flow add_to_address(Warp& w, const Instr& in, Mask mask) {
  const uint64_t* a = w.in<uint64_t>(in.a);
  const uint64_t add = static_cast<uint64_t>(in.imm);
  write_lanes(w.out<uint64_t>(in.d), mask, [=](int l) { return a[l] + add; });
  return Flow::next;
}

void cvta(Encoding& e) {
  const bool to = e.take("to");
  const Space space = take_space(e);
  const Type t = e.take_type();
  if (bits_of(t) != 64) e.fail("a generic address has 64 bits");
  e.expect_operands(2, 2);
  uint64_t offset = 0;
  if (const Symbol* s = variable(e, e.operand(1), offset)) {
    const bool global = s->space == Space::global || s->space == Space::constant;
    if (to || (s->space != space && !(global && window_of(space) == 0)))
      e.fail("a variable of another state space");
    return move_address(e, t, *s, offset, true);
  }
  e.out.d = e.destination(0, t);
  e.out.a = e.source(1, t);
  const uint64_t window = window_of(space);
  e.out.imm = static_cast<int64_t>(to ? -window : window);
  e.out.run = add_to_address;
}

// imm: the window; small: also of the own CTA
Flow in_window(Warp& w, const Instr& in, Mask mask) {
  const uint64_t* a = w.in<uint64_t>(in.a);
  const uint64_t window = static_cast<uint64_t>(in.imm);
  const uint32_t* own = w.in<uint32_t>(kSharedBase * kLanes * sizeof(uint32_t));
  const bool any_rank = !in.small;
  const Mask hit = lanes_where([=](int l) {
    const uint64_t at = a[l] - window;
    return (at < kWindowBytes) & (any_rank | (at >> kRankShift == own[l] >> kRankShift));
  });
  write_pred(w.pred(in.d), mask, hit);
  return Flow::next;
}
Flow outside_windows(Warp& w, const Instr& in, Mask mask) {
  const uint64_t* a = w.in<uint64_t>(in.a);
  // The parameters of a kernel count as global.
  const Mask hit = lanes_where(
      [=](int l) { return (a[l] < kWindowBytes) | (a[l] - kParamWindow < kWindowBytes); });
  write_pred(w.pred(in.d), mask, hit);
  return Flow::next;
}

void isspacep(Encoding& e) {
  const bool cluster = e.take("shared::cluster");
  const Space space = cluster ? Space::shared : take_space(e);
  e.expect_operands(2, 2);
  bool negated = false;
  e.out.d = e.predicate(0, negated);
  e.out.a = e.source(1, Type::u64);
  if (space == Space::constant) e.fail("isspacep.const is not modelled");
  e.out.imm = static_cast<int64_t>(window_of(space));
  e.out.small = space == Space::shared && !cluster;
  e.out.run = space == Space::global ? &outside_windows : &in_window;
}

// Shared and generic addresses alike: the rank's bits are replaced. imm: an offset.
template <class T>
Flow map_to_rank(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  const uint32_t* b = w.in<uint32_t>(in.b);
  const T offset = static_cast<T>(in.imm);
  const T kept = static_cast<T>(kSharedWindow | kSharedOffsetMask);
  write_lanes(w.out<T>(in.d), mask, [=](int l) {
    return static_cast<T>(((a[l] + offset) & kept) | T{b[l]} << kRankShift);
  });
  return Flow::next;
}
template <class T>
Flow rank_of(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  write_lanes(w.out<uint32_t>(in.d), mask,
              [=](int l) { return static_cast<uint32_t>(a[l]) >> kRankShift; });
  return Flow::next;
}

// Operand 1: a register with an address, or a variable in shared memory.
Type shared_source(Encoding& e) {
  const bool shared = e.take("shared::cluster");
  const Type t = e.take_type();
  if (bits_of(t) != 64 && !(shared && bits_of(t) == 32)) e.fail("a generic address has 64 bits");
  uint64_t offset = 0;
  if (const Symbol* s = variable(e, e.operand(1), offset)) {
    if (!shared || s->space != Space::shared) e.fail("a variable of another state space");
    if (bits_of(t) != 32) e.fail("a 64-bit address of a variable is not modelled here");
    e.out.a = (s->dynamic ? kDynamicShared : kSharedBase) * kLanes * sizeof(uint32_t);
    e.out.imm = static_cast<int64_t>(s->address + offset);
  } else {
    e.out.a = e.source(1, t);
  }
  return t;
}

void mapa(Encoding& e) {
  e.expect_operands(3, 3);
  const Type t = shared_source(e);
  e.out.d = e.destination(0, t);
  e.out.b = e.source(2, Type::u32);
  e.out.run = bits_of(t) == 64 ? &map_to_rank<uint64_t> : &map_to_rank<uint32_t>;
}
void getctarank(Encoding& e) {
  e.expect_operands(2, 2);
  const Type t = shared_source(e);
  e.out.d = e.destination(0, Type::u32);
  e.out.run = bits_of(t) == 64 ? &rank_of<uint64_t> : &rank_of<uint32_t>;
}

}  // namespace

void add_move_opcodes(Opcodes& ops) {
  ops["mov"] = mov;
  ops["cvta"] = cvta;
  ops["isspacep"] = isspacep;
  ops["mapa"] = mapa;
  ops["getctarank"] = getctarank;
}

}  // namespace ptx
