// Logic, shifts, bit fields, byte permutation.
#include <bit>
#include <type_traits>

#include "encoding.h"
#include "lanes.h"

namespace ptx {
namespace {

struct And {
  template <class T>
  T operator()(T a, T b) const {
    return a & b;
  }
};
struct Or {
  template <class T>
  T operator()(T a, T b) const {
    return a | b;
  }
};
struct Xor {
  template <class T>
  T operator()(T a, T b) const {
    return a ^ b;
  }
};
struct Not {
  template <class T>
  T operator()(T a) const {
    return static_cast<T>(~a);
  }
};
struct Cnot {
  template <class T>
  T operator()(T a) const {
    return a == 0;
  }
};

// Shifts by the width or more give zero, or the sign.
template <class T>
Flow shift_left(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  const uint32_t* n = w.in<uint32_t>(in.b);
  constexpr uint32_t kBits = 8 * sizeof(T);
  write_lanes(w.out<T>(in.d), mask,
              [=](int l) { return n[l] < kBits ? static_cast<T>(a[l] << (n[l] % kBits)) : T{0}; });
  return Flow::next;
}
template <class T>
Flow shift_right(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  const uint32_t* n = w.in<uint32_t>(in.b);
  constexpr uint32_t kBits = 8 * sizeof(T);
  write_lanes(w.out<T>(in.d), mask, [=](int l) {
    if constexpr (std::is_signed_v<T>)
      return static_cast<T>(a[l] >> (n[l] < kBits ? n[l] : kBits - 1));
    else
      return n[l] < kBits ? static_cast<T>(a[l] >> (n[l] % kBits)) : T{0};
  });
  return Flow::next;
}

// shf: a is the low word, b the high one.
template <bool kLeft, bool kClamp>
struct Funnel {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
    const uint32_t n = kClamp ? (c < 32 ? c : 32) : c & 31;
    const uint64_t both = uint64_t{b} << 32 | a;
    return static_cast<uint32_t>(kLeft ? (both << n) >> 32 : both >> n);
  }
};

struct Bfe {
  template <class T>
  T operator()(T a, uint32_t pos, uint32_t len) const {
    constexpr uint32_t kBits = 8 * sizeof(T);
    using U = std::make_unsigned_t<T>;
    pos &= 255;
    len &= 255;
    if (len == 0) return 0;
    // The sign comes from the topmost bit of the field that exists.
    const uint32_t top = pos + len - 1 < kBits ? pos + len - 1 : kBits - 1;
    const bool negative = std::is_signed_v<T> && (static_cast<U>(a) >> top & 1);
    U field = pos < kBits ? static_cast<U>(a) >> pos : 0;
    const uint32_t have = top + 1 > pos ? top + 1 - pos : 0;
    if (have < kBits) field &= (U{1} << have) - 1;
    if (negative && have < kBits) field |= ~U{0} << have;
    return static_cast<T>(field);
  }
};
template <class T>
Flow bit_field_extract(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  const uint32_t* b = w.in<uint32_t>(in.b);
  const uint32_t* c = w.in<uint32_t>(in.c);
  write_lanes(w.out<T>(in.d), mask, [=](int l) { return Bfe{}(a[l], b[l], c[l]); });
  return Flow::next;
}

template <class T>
T insert_field(T a, T b, uint32_t pos, uint32_t len) {
  constexpr uint32_t kBits = 8 * sizeof(T);
  pos &= 255;
  len &= 255;
  if (len == 0 || pos >= kBits) return b;
  const T ones = len >= kBits ? ~T{0} : (T{1} << len) - 1;
  return (b & ~(ones << pos)) | (a & ones) << pos;
}
template <class T>
Flow bit_field_insert(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  const T* b = w.in<T>(in.b);
  const uint32_t* pos = w.in<uint32_t>(in.c);
  const uint32_t* len = w.in<uint32_t>(in.extra);
  write_lanes(w.out<T>(in.d), mask,
              [=](int l) { return insert_field(a[l], b[l], pos[l], len[l]); });
  return Flow::next;
}

struct Popc {
  template <class T>
  uint32_t operator()(T a) const {
    return std::popcount(a);
  }
};
struct Clz {
  template <class T>
  uint32_t operator()(T a) const {
    return std::countl_zero(a);
  }
};
struct Brev {
  template <class T>
  T operator()(T a) const {
    T out = 0;
    for (size_t i = 0; i < 8 * sizeof(T); ++i) out |= (a >> i & 1) << (8 * sizeof(T) - 1 - i);
    return out;
  }
};
template <bool kShiftAmount>
struct Bfind {
  template <class T>
  uint32_t operator()(T a) const {
    using U = std::make_unsigned_t<T>;
    const U bits = static_cast<U>(a < 0 ? ~a : a);
    if (bits == 0) return ~0u;
    const int zeros = std::countl_zero(bits);
    return kShiftAmount ? zeros : static_cast<int>(8 * sizeof(T)) - 1 - zeros;
  }
};
template <bool kClamp>
struct Bmsk {
  uint32_t operator()(uint32_t pos, uint32_t len) const {
    const uint32_t width = kClamp ? (len < 32 ? len : 32) : len & 31;
    const uint64_t ones = (uint64_t{1} << width) - 1;
    return kClamp && pos >= 32 ? 0 : static_cast<uint32_t>(ones << (pos & 31));
  }
};
// The low n bits, extended to 32. None of 0; of 32 and more all if clamped.
template <bool kClamp, bool kSigned>
struct Szext {
  uint32_t operator()(uint32_t a, uint32_t n) const {
    const uint32_t width = n & 31;
    if (kClamp && n >= 32) return a;
    const uint32_t ones = (uint32_t{1} << width) - 1;
    const bool negative = kSigned && width > 0 && (a >> ((width - 1) & 31) & 1);
    return (a & ones) | (negative ? ~ones : 0);
  }
};

// Bit i of the table is the result for inputs abc = i.
[[gnu::always_inline]] inline void lop3_lanes(Warp& w, const Instr& in, uint32_t (&out)[kLanes]) {
  const uint32_t* a = w.in<uint32_t>(in.a);
  const uint32_t* b = w.in<uint32_t>(in.b);
  const uint32_t* c = w.in<uint32_t>(in.c);
  uint32_t minterm[8];
  for (int i = 0; i < 8; ++i) minterm[i] = in.imm >> i & 1 ? ~0u : 0;
  for (int l = 0; l < kLanes; ++l) {
    const uint32_t x = a[l], y = b[l], z = c[l];
    out[l] = (minterm[0] & ~x & ~y & ~z) | (minterm[1] & ~x & ~y & z) | (minterm[2] & ~x & y & ~z) |
             (minterm[3] & ~x & y & z) | (minterm[4] & x & ~y & ~z) | (minterm[5] & x & ~y & z) |
             (minterm[6] & x & y & ~z) | (minterm[7] & x & y & z);
  }
}
Flow lop3(Warp& w, const Instr& in, Mask mask) {
  uint32_t out[kLanes];
  lop3_lanes(w, in, out);
  blend(w.out<uint32_t>(in.d), out, mask);
  return Flow::next;
}
// p = (d != 0) op q; small: 0 or, 1 and; target: p, extra: q, imm bit 8 negates it
Flow lop3_with_predicate(Warp& w, const Instr& in, Mask mask) {
  uint32_t out[kLanes];
  lop3_lanes(w, in, out);
  const Mask q = *w.in<Mask>(in.extra) ^ (in.imm & 256 ? kAllLanes : 0);
  const Mask hit = lanes_where([&](int l) { return out[l] != 0; });
  if (in.d != kNoRef) blend(w.out<uint32_t>(in.d), out, mask);
  write_pred(w.pred(in.target), mask, in.small ? hit & q : hit | q);
  return Flow::next;
}

uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t s = selector >> (4 * i) & 15;
    uint32_t byte = bytes >> (8 * (s & 7)) & 255;
    if (s & 8) byte = byte & 128 ? 255 : 0;
    out |= byte << (8 * i);
  }
  return out;
}
// The same selector in all lanes, as it mostly is.
Flow prmt_constant(Warp& w, const Instr& in, Mask mask) {
  const uint32_t* a = w.in<uint32_t>(in.a);
  const uint32_t* b = w.in<uint32_t>(in.b);
  const uint32_t selector = *w.in<uint32_t>(in.c);
  uint32_t shift[4], sign[4];
  for (int i = 0; i < 4; ++i) {
    shift[i] = 8 * (selector >> (4 * i) & 7);
    sign[i] = selector >> (4 * i) & 8 ? 255 : 0;
  }
  write_lanes(w.out<uint32_t>(in.d), mask, [=](int l) {
    const uint64_t bytes = uint64_t{b[l]} << 32 | a[l];
    uint32_t out = 0;
    for (int i = 0; i < 4; ++i) {
      const uint32_t byte = static_cast<uint32_t>(bytes >> shift[i]) & 255;
      const uint32_t copies = byte >> 7 ? sign[i] : 0;
      out |= ((byte & ~sign[i]) | copies) << (8 * i);
    }
    return out;
  });
  return Flow::next;
}
enum Prmt { kDefault = -1, kF4e, kB4e, kRc8, kEcl, kEcr, kRc16 };
// The selector that the special mode with control value s (its two low bits) stands for.
uint32_t selector_of(int mode, uint32_t s) {
  constexpr uint16_t kSelectors[6][4] = {
      {0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123},
      {0x0000, 0x1111, 0x2222, 0x3333}, {0x3210, 0x3211, 0x3222, 0x3333},
      {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232}};
  return mode == kDefault ? s : kSelectors[mode][s & 3];
}
Flow prmt(Warp& w, const Instr& in, Mask mask) {
  const uint32_t* a = w.in<uint32_t>(in.a);
  const uint32_t* b = w.in<uint32_t>(in.b);
  const uint32_t* c = w.in<uint32_t>(in.c);
  const int mode = static_cast<int>(in.imm);
  write_lanes(w.out<uint32_t>(in.d), mask,
              [=](int l) { return permute(a[l], b[l], selector_of(mode, c[l])); });
  return Flow::next;
}

// Predicates are masks: one operation for all lanes. small: 0 and, 1 or, 2 xor, 3 not, 4 mov;
// imm bits 0 and 1 negate the sources.
Flow logic_of_predicates(Warp& w, const Instr& in, Mask mask) {
  const Mask a = *w.in<Mask>(in.a) ^ (in.imm & 1 ? kAllLanes : 0);
  const Mask b = in.b == kNoRef ? 0 : *w.in<Mask>(in.b) ^ (in.imm & 2 ? kAllLanes : 0);
  const Mask value = in.small == 0 ? a & b : in.small == 1 ? a | b : in.small == 2 ? a ^ b : a;
  write_pred(w.pred(in.d), mask, value);
  return Flow::next;
}

void expect_bits(Encoding& e, Type t) {
  if (!is_untyped(t)) e.fail("untyped bits are expected");
}
void expect_wide_integer(Encoding& e, Type t) {
  if (!is_integer(t) || bits_of(t) < 32) e.fail("an integer type of 32 or 64 bits is expected");
}

Type take_wide_bits(Encoding& e) {
  const Type t = e.take_type();
  if (t != Type::b32 && t != Type::b64) e.fail(".b32 or .b64 is expected");
  return t;
}

template <class F>
void logic(Encoding& e, int which) {
  const Type t = e.take_type();
  e.expect_operands(3, 3);
  if (t == Type::pred) {
    bool na = false, nb = false, nd = false;
    e.out.d = e.predicate(0, nd);
    e.out.a = e.predicate_source(e.operand(1), na);
    e.out.b = e.predicate_source(e.operand(2), nb);
    e.out.imm = (na ? 1 : 0) | (nb ? 2 : 0);
    e.out.small = which;
    e.out.run = logic_of_predicates;
    return;
  }
  expect_bits(e, t);
  e.out.d = e.destination(0, t);
  e.out.a = e.source(1, t);
  e.out.b = e.source(2, t);
  e.out.run = pick_integer(e, t, []<class T>(T) -> Handler { return &binary<T, F>; });
}

template <class Pick>
void shift(Encoding& e, bool left, Pick pick) {
  const Type t = e.take_type();
  if (left) expect_bits(e, t);
  e.expect_operands(3, 3);
  e.out.d = e.destination(0, t);
  e.out.a = e.source(1, t);
  e.out.b = e.source(2, Type::u32);
  e.out.run = pick_integer(e, t, pick);
}

template <class F>
void count_bits(Encoding& e) {
  const Type t = take_wide_bits(e);
  e.expect_operands(2, 2);
  e.out.d = e.destination(0, Type::u32);
  e.out.a = e.source(1, t);
  e.out.run = bits_of(t) == 64 ? &unary<uint64_t, F, uint32_t> : &unary<uint32_t, F, uint32_t>;
}

void expect_b32(Encoding& e) {
  if (e.take_type() != Type::b32) e.fail(".b32 is expected");
}
void word_operands(Encoding& e, int sources) {
  e.expect_operands(sources + 1, sources + 1);
  e.out.d = e.destination(0, Type::b32);
  e.out.a = e.source(1, Type::b32);
  if (sources > 1) e.out.b = e.source(2, Type::b32);
  if (sources > 2) e.out.c = e.source(3, Type::b32);
}
void words(Encoding& e, int sources) {
  expect_b32(e);
  word_operands(e, sources);
}

bool take_clamp(Encoding& e) {
  const int mode = e.take_one_of({"wrap", "clamp"});
  if (mode < 0) e.fail(".wrap or .clamp is missing");
  return mode == 1;
}

}  // namespace

void encode_predicate_move(Encoding& e) {
  bool na = false, nd = false;
  e.out.d = e.predicate(0, nd);
  e.out.a = e.predicate_source(e.operand(1), na);
  e.out.imm = na ? 1 : 0;
  e.out.small = 4;
  e.out.run = logic_of_predicates;
}

void add_bit_opcodes(Opcodes& ops) {
  ops["and"] = [](Encoding& e) { logic<And>(e, 0); };
  ops["or"] = [](Encoding& e) { logic<Or>(e, 1); };
  ops["xor"] = [](Encoding& e) { logic<Xor>(e, 2); };
  ops["not"] = [](Encoding& e) {
    const Type t = e.take_type();
    e.expect_operands(2, 2);
    if (t == Type::pred) {
      encode_predicate_move(e);
      e.out.imm ^= 1;
      return;
    }
    expect_bits(e, t);
    e.out.d = e.destination(0, t);
    e.out.a = e.source(1, t);
    e.out.run = pick_integer(e, t, []<class T>(T) -> Handler { return &unary<T, Not>; });
  };
  ops["cnot"] = [](Encoding& e) {
    const Type t = e.take_type();
    expect_bits(e, t);
    e.expect_operands(2, 2);
    e.out.d = e.destination(0, t);
    e.out.a = e.source(1, t);
    e.out.run = pick_integer(e, t, []<class T>(T) -> Handler { return &unary<T, Cnot>; });
  };
  ops["shl"] = [](Encoding& e) {
    shift(e, true, []<class T>(T) -> Handler { return &shift_left<T>; });
  };
  ops["shr"] = [](Encoding& e) {
    shift(e, false, []<class T>(T) -> Handler { return &shift_right<T>; });
  };
  ops["shf"] = [](Encoding& e) {
    const int direction = e.take_one_of({"r", "l"});
    if (direction < 0) e.fail(".l or .r is missing");
    const bool left = direction == 1, clamp = take_clamp(e);
    words(e, 3);
    e.out.run = left ? (clamp ? &ternary<uint32_t, Funnel<true, true>>
                              : &ternary<uint32_t, Funnel<true, false>>)
                     : (clamp ? &ternary<uint32_t, Funnel<false, true>>
                              : &ternary<uint32_t, Funnel<false, false>>);
  };
  ops["lop3"] = [](Encoding& e) {
    const int op = e.take_one_of({"or", "and"});
    expect_b32(e);
    e.expect_operands(op < 0 ? 5 : 6, op < 0 ? 5 : 6);
    e.out.a = e.source(1, Type::b32);
    e.out.b = e.source(2, Type::b32);
    e.out.c = e.source(3, Type::b32);
    e.out.imm = static_cast<int64_t>(e.integer(4) & 255);
    if (op < 0) {
      e.out.d = e.destination(0, Type::b32);
      e.out.run = lop3;
      return;
    }
    const Operand& both = e.operand(0);
    if (both.kind != Operand::pair) e.fail("two results are expected");
    bool negated = false;
    e.out.d = e.destination(both.items[0], Type::b32);
    e.out.target = e.predicate(both.items[1], negated);
    e.out.extra = e.predicate_source(e.operand(5), negated);
    if (negated) e.out.imm |= 256;
    e.out.small = static_cast<uint8_t>(op);
    e.out.run = lop3_with_predicate;
  };
  ops["prmt"] = [](Encoding& e) {
    words(e, 3);
    e.out.imm = e.take_one_of({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"});
    const bool constant = e.operand(3).kind == Operand::constant && e.out.imm == kDefault;
    e.out.run = constant ? prmt_constant : prmt;
  };
  ops["bfe"] = [](Encoding& e) {
    const Type t = e.take_type();
    expect_wide_integer(e, t);
    e.expect_operands(4, 4);
    e.out.d = e.destination(0, t);
    e.out.a = e.source(1, t);
    e.out.b = e.source(2, Type::u32);
    e.out.c = e.source(3, Type::u32);
    e.out.run = pick_integer(e, t, []<class T>(T) -> Handler { return &bit_field_extract<T>; });
  };
  ops["bfi"] = [](Encoding& e) {
    const Type t = take_wide_bits(e);
    e.expect_operands(5, 5);
    e.out.d = e.destination(0, t);
    e.out.a = e.source(1, t);
    e.out.b = e.source(2, t);
    e.out.c = e.source(3, Type::u32);
    e.out.extra = e.source(4, Type::u32);
    e.out.run = bits_of(t) == 64 ? &bit_field_insert<uint64_t> : &bit_field_insert<uint32_t>;
  };
  ops["popc"] = [](Encoding& e) { count_bits<Popc>(e); };
  ops["clz"] = [](Encoding& e) { count_bits<Clz>(e); };
  ops["brev"] = [](Encoding& e) {
    const Type t = take_wide_bits(e);
    e.expect_operands(2, 2);
    e.out.d = e.destination(0, t);
    e.out.a = e.source(1, t);
    e.out.run = bits_of(t) == 64 ? &unary<uint64_t, Brev> : &unary<uint32_t, Brev>;
  };
  ops["bfind"] = [](Encoding& e) {
    const bool amount = e.take("shiftamt");
    const Type t = e.take_type();
    expect_wide_integer(e, t);
    e.expect_operands(2, 2);
    e.out.d = e.destination(0, Type::u32);
    e.out.a = e.source(1, t);
    e.out.run = pick_integer(e, t, [&]<class T>(T) -> Handler {
      return amount ? &unary<T, Bfind<true>, uint32_t> : &unary<T, Bfind<false>, uint32_t>;
    });
  };
  ops["bmsk"] = [](Encoding& e) {
    const bool clamp = take_clamp(e);
    words(e, 2);
    e.out.run = clamp ? &binary<uint32_t, Bmsk<true>> : &binary<uint32_t, Bmsk<false>>;
  };
  ops["szext"] = [](Encoding& e) {
    const bool clamp = take_clamp(e);
    const Type t = e.take_type();
    if (t != Type::u32 && t != Type::s32) e.fail(".u32 or .s32 is expected");
    word_operands(e, 2);
    e.out.run =
        t == Type::s32
            ? (clamp ? &binary<uint32_t, Szext<true, true>> : &binary<uint32_t, Szext<false, true>>)
            : (clamp ? &binary<uint32_t, Szext<true, false>>
                     : &binary<uint32_t, Szext<false, false>>);
  };
}

}  // namespace ptx
