// setp, set, selp, slct.
#include "encoding.h"
#include "formats.h"
#include "lanes.h"

namespace ptx {
namespace {

// How lane l of a source is read.
template <class T>
struct Plain {
  using Stored = T;
  static T load(const T* p, int l) { return p[l]; }
};
struct FlushedF32 {
  using Stored = float;
  static float load(const float* p, int l) { return flush(p[l]); }
};
template <bool kFlush>
struct F16 {
  using Stored = uint16_t;
  static float load(const uint16_t* p, int l) {
    const uint16_t code = p[l];
    return float_of_f16(kFlush && !(code & 0x7c00) ? code & 0x8000 : code);
  }
};
struct BF16 {
  using Stored = uint16_t;
  static float load(const uint16_t* p, int l) { return float_of_bf16(p[l]); }
};
template <class Half, int kWhich>
struct HalfOf {  // of a pair; lane l of the pair is lanes 2l and 2l + 1
  using Stored = uint16_t;
  static float load(const uint16_t* p, int l) { return Half::load(p, 2 * l + kWhich); }
};

struct Eq {
  template <class T>
  bool operator()(T a, T b) const {
    return a == b;
  }
};
struct Lt {
  template <class T>
  bool operator()(T a, T b) const {
    return a < b;
  }
};
struct Le {
  template <class T>
  bool operator()(T a, T b) const {
    return a <= b;
  }
};
struct Gt {
  template <class T>
  bool operator()(T a, T b) const {
    return a > b;
  }
};
struct Ge {
  template <class T>
  bool operator()(T a, T b) const {
    return a >= b;
  }
};
struct Ne {  // and ordered
  template <class T>
  bool operator()(T a, T b) const {
    return (a < b) | (a > b);
  }
};
struct Num {
  template <class T>
  bool operator()(T a, T b) const {
    return (a == a) & (b == b);
  }
};
template <class F>
struct Not {
  template <class T>
  bool operator()(T a, T b) const {
    return !F{}(a, b);
  }
};

template <class Lane, class F>
Mask compare(const Warp& w, const Instr& in) {
  const auto* a = w.in<typename Lane::Stored>(in.a);
  const auto* b = w.in<typename Lane::Stored>(in.b);
  return lanes_where([=](int l) { return F{}(Lane::load(a, l), Lane::load(b, l)); });
}

enum Boolean : uint8_t { kNone, kAnd, kOr, kXor };
// imm bit 0 negates c; small is a Boolean.
Mask combine(const Warp& w, const Instr& in, Mask t) {
  if (in.small == kNone) return t;
  const Mask c = *w.in<Mask>(in.c) ^ (in.imm & 1 ? kAllLanes : 0);
  return in.small == kAnd ? t & c : in.small == kOr ? t | c : t ^ c;
}

// d: p, extra: q
template <class Lane, class F>
Flow set_predicates(Warp& w, const Instr& in, Mask mask) {
  const Mask t = compare<Lane, F>(w, in);
  const Mask p = combine(w, in, t), q = combine(w, in, ~t);
  if (in.d != kNoRef) write_pred(w.pred(in.d), mask, p);
  if (in.extra != kNoRef) write_pred(w.pred(in.extra), mask, q);
  return Flow::next;
}
// p of the low halves, q of the high ones
template <class Half, class F>
Flow set_predicates_of_halves(Warp& w, const Instr& in, Mask mask) {
  const Mask p = combine(w, in, compare<HalfOf<Half, 0>, F>(w, in));
  const Mask q = combine(w, in, compare<HalfOf<Half, 1>, F>(w, in));
  if (in.d != kNoRef) write_pred(w.pred(in.d), mask, p);
  if (in.extra != kNoRef) write_pred(w.pred(in.extra), mask, q);
  return Flow::next;
}

// more: what true is; D: as wide as the destination
template <class Lane, class F, class D>
Flow set_value(Warp& w, const Instr& in, Mask mask) {
  const Mask t = combine(w, in, compare<Lane, F>(w, in));
  const D yes = static_cast<D>(in.more);
  write_lanes(w.out<D>(in.d), mask, [=](int l) { return t >> l & 1 ? yes : D{0}; });
  return Flow::next;
}
template <class Half, class F>
Flow set_halves(Warp& w, const Instr& in, Mask mask) {
  const Mask low = combine(w, in, compare<HalfOf<Half, 0>, F>(w, in));
  const Mask high = combine(w, in, compare<HalfOf<Half, 1>, F>(w, in));
  const uint32_t yes = in.more;
  write_lanes(w.out<uint32_t>(in.d), mask,
              [=](int l) { return (low >> l & 1 ? yes : 0) | (high >> l & 1 ? yes << 16 : 0); });
  return Flow::next;
}

// The index in this list is the relation's number.
int take_relation(Encoding& e) {
  const int r = e.take_one_of({"eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu",
                               "gtu", "geu", "num", "nan", "lo", "ls", "hi", "hs"});
  if (r < 0) e.fail("a comparison is missing");
  return r;
}
// pick.operator()<F>() for the relation's function
template <class Pick>
Handler pick_relation(int relation, Pick pick) {
  switch (relation) {
    case 0: return pick(Eq{});
    case 1: return pick(Ne{});
    case 2: return pick(Lt{});
    case 3: return pick(Le{});
    case 4: return pick(Gt{});
    case 5: return pick(Ge{});
    case 6: return pick(Not<Ne>{});
    case 7: return pick(Not<Eq>{});
    case 8: return pick(Not<Ge>{});
    case 9: return pick(Not<Gt>{});
    case 10: return pick(Not<Le>{});
    case 11: return pick(Not<Lt>{});
    case 12: return pick(Num{});
    default: return pick(Not<Num>{});
  }
}
template <class Pick>
Handler pick_order(int relation, Pick pick) {  // of integers
  switch (relation) {
    case 0: return pick(Eq{});
    case 1: return pick(Not<Eq>{});
    case 2: return pick(Lt{});
    case 3: return pick(Le{});
    case 4: return pick(Gt{});
    default: return pick(Ge{});
  }
}

bool is_pair(Type t) {
  return t == Type::f16x2 || t == Type::bf16x2;
}

// pick.operator()<Lane>(F) for the type and the relation
template <class Pick>
Handler pick_compare(Encoding& e, Type t, int relation, bool ftz, Pick pick) {
  const auto floats = [&]<class Lane>(Lane) {
    if (relation > 13) e.fail("lo, ls, hi and hs compare unsigned integers");
    return pick_relation(relation, [&]<class F>(F f) { return pick.template operator()<Lane>(f); });
  };
  if (ftz && t != Type::f32 && t != Type::f16 && t != Type::f16x2) e.fail(".ftz of this type");
  switch (t) {
    case Type::f32: return ftz ? floats(FlushedF32{}) : floats(Plain<float>{});
    case Type::f64: return floats(Plain<double>{});
    case Type::f16:
    case Type::f16x2: return ftz ? floats(F16<true>{}) : floats(F16<false>{});
    case Type::bf16:
    case Type::bf16x2: return floats(BF16{});
    default: break;
  }
  if (relation > 5 && relation < 14) e.fail("an unordered comparison of integers");
  if (relation > 13 && is_signed(t)) e.fail("lo, ls, hi and hs compare unsigned integers");
  if (relation > 1 && is_untyped(t)) e.fail("bits have no order");
  if (relation > 13) relation -= 12;
  return pick_integer(e, t, [&]<class T>(T) {
    return pick_order(relation,
                      [&]<class F>(F f) { return pick.template operator()<Plain<T>>(f); });
  });
}

void take_boolean(Encoding& e, int operand) {
  e.out.small = static_cast<uint8_t>(1 + e.take_one_of({"and", "or", "xor"}));
  e.expect_operands(e.out.small ? operand + 1 : operand, e.out.small ? operand + 1 : operand);
  if (!e.out.small) return;
  bool negated = false;
  e.out.c = e.predicate_source(e.operand(operand), negated);
  e.out.imm = negated ? 1 : 0;
}

void setp(Encoding& e) {
  const int relation = take_relation(e);
  const Type t = e.take_type();
  const bool ftz = e.take("ftz");
  take_boolean(e, 3);
  const Operand& d = e.operand(0);
  const auto destination = [&](const Operand& o) {
    bool negated = false;
    if (o.kind == Operand::name && o.word == "_") return kNoRef;
    const Ref r = e.predicate(o, negated);
    if (negated) e.fail("a result can't be negated");
    return r;
  };
  const bool two = d.kind == Operand::pair;
  e.out.d = destination(two ? d.items[0] : d);
  e.out.extra = two ? destination(d.items[1]) : kNoRef;
  e.out.a = e.source(1, t);
  e.out.b = e.source(2, t);
  if (is_pair(t) && !two) e.fail("two results are expected");
  if ((t == Type::f16 || t == Type::bf16) && two) e.fail("one result is expected");
  e.out.run = pick_compare(e, t, relation, ftz, [&]<class Lane, class F>(F) -> Handler {
    if constexpr (std::is_same_v<typename Lane::Stored, uint16_t> &&
                  !std::is_same_v<Lane, Plain<uint16_t>>)
      if (is_pair(t)) return &set_predicates_of_halves<Lane, F>;
    return &set_predicates<Lane, F>;
  });
}

void set(Encoding& e) {
  const int relation = take_relation(e);
  const Type to = e.take_type(), t = e.take_type();
  const bool ftz = e.take("ftz");
  take_boolean(e, 3);
  e.out.d = e.destination(0, to);
  e.out.a = e.source(1, t);
  e.out.b = e.source(2, t);
  switch (to) {
    case Type::f32: e.out.more = 0x3f800000; break;
    case Type::f16:
    case Type::f16x2: e.out.more = 0x3c00; break;
    case Type::bf16:
    case Type::bf16x2: e.out.more = 0x3f80; break;
    case Type::u16:
    case Type::s16: e.out.more = 0xffff; break;
    case Type::u32:
    case Type::s32: e.out.more = is_pair(t) ? 0xffff : 0xffffffff; break;
    default: e.fail(std::string("a result of type .") + name_of(to));
  }
  const bool half = t == Type::f16 || t == Type::bf16;
  if ((to == Type::u16 || to == Type::s16) && !half)
    e.fail("a 16-bit integer result is for .f16 and .bf16");
  if (is_pair(t) != is_pair(to) && !(is_pair(t) && is_integer(to)))
    e.fail("types that don't match");
  if ((is_pair(to) && to != t) || (half && to == Type::f32) || (t == Type::bf16 && to == Type::f16))
    e.fail("types that don't match");
  if (to == Type::bf16 && ftz) e.fail("a result of type .bf16 has no .ftz");
  e.out.run = pick_compare(e, t, relation, ftz, [&]<class Lane, class F>(F) -> Handler {
    if constexpr (std::is_same_v<typename Lane::Stored, uint16_t> &&
                  !std::is_same_v<Lane, Plain<uint16_t>>)
      if (is_pair(t)) return &set_halves<Lane, F>;
    return bits_of(to) == 16 ? &set_value<Lane, F, uint16_t> : &set_value<Lane, F, uint32_t>;
  });
}

template <class T>
Flow select(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  const T* b = w.in<T>(in.b);
  const Mask c = *w.in<Mask>(in.c) ^ (in.imm & 1 ? kAllLanes : 0);
  write_lanes(w.out<T>(in.d), mask, [=](int l) { return c >> l & 1 ? a[l] : b[l]; });
  return Flow::next;
}
template <class T, class Lane>
Flow select_by_sign(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  const T* b = w.in<T>(in.b);
  const auto* c = w.in<typename Lane::Stored>(in.c);
  write_lanes(w.out<T>(in.d), mask, [=](int l) { return Lane::load(c, l) >= 0 ? a[l] : b[l]; });
  return Flow::next;
}

void operands_of_selection(Encoding& e, Type t) {
  const bool number = is_integer(t) || t == Type::f32 || t == Type::f64;
  if ((!number && !is_untyped(t)) || bits_of(t) < 16 || bits_of(t) > 64)
    e.fail("not modelled for this type");
  e.expect_operands(4, 4);
  e.out.d = e.destination(0, t);
  e.out.a = e.source(1, t);
  e.out.b = e.source(2, t);
}

void selp(Encoding& e) {
  const Type t = e.take_type();
  operands_of_selection(e, t);
  bool negated = false;
  e.out.c = e.predicate_source(e.operand(3), negated);
  e.out.imm = negated ? 1 : 0;
  e.out.run = bits_of(t) == 16   ? &select<uint16_t>
              : bits_of(t) == 32 ? &select<uint32_t>
                                 : &select<uint64_t>;
}

void slct(Encoding& e) {
  const Type t = e.take_type(), by = e.take_type();
  operands_of_selection(e, t);
  e.out.c = e.source(3, by);
  const auto pick = [&]<class Lane>(Lane) -> Handler {
    return bits_of(t) == 16   ? &select_by_sign<uint16_t, Lane>
           : bits_of(t) == 32 ? &select_by_sign<uint32_t, Lane>
                              : &select_by_sign<uint64_t, Lane>;
  };
  if (by == Type::s32)
    e.out.run = pick(Plain<int32_t>{});
  else if (by == Type::f32)
    e.out.run = e.take("ftz") ? pick(FlushedF32{}) : pick(Plain<float>{});
  else
    e.fail("slct selects by .s32 or .f32");
}

}  // namespace

void add_compare_opcodes(Opcodes& ops) {
  ops["setp"] = setp;
  ops["set"] = set;
  ops["selp"] = selp;
  ops["slct"] = slct;
}

}  // namespace ptx
