// Integer arithmetic: add .. mad, with carries; shifts and logic are in ops_bit.cpp.
#include <limits>
#include <type_traits>

#include "encoding.h"
#include "integers.h"
#include "lanes.h"

namespace ptx {
namespace {

template <class T>
struct Twice;
template <>
struct Twice<uint16_t> {
  using type = uint32_t;
};
template <>
struct Twice<int16_t> {
  using type = int32_t;
};
template <>
struct Twice<uint32_t> {
  using type = uint64_t;
};
template <>
struct Twice<int32_t> {
  using type = int64_t;
};
template <>
struct Twice<uint64_t> {
  using type = unsigned __int128;
};
template <>
struct Twice<int64_t> {
  using type = __int128;
};
template <class T>
using Wide = typename Twice<T>::type;

struct Sub {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(Unsigned<T>(a) - Unsigned<T>(b));
  }
};
int32_t saturate(int64_t x) {
  constexpr int64_t kLow = std::numeric_limits<int32_t>::min();
  constexpr int64_t kHigh = std::numeric_limits<int32_t>::max();
  return static_cast<int32_t>(x < kLow ? kLow : x > kHigh ? kHigh : x);
}
struct AddSat {
  int32_t operator()(int32_t a, int32_t b) const { return saturate(int64_t{a} + b); }
};
struct SubSat {
  int32_t operator()(int32_t a, int32_t b) const { return saturate(int64_t{a} - b); }
};
struct MulLo {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(Unsigned<T>(a) * Unsigned<T>(b));
  }
};
struct MulHi {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>((Wide<T>(a) * Wide<T>(b)) >> (8 * sizeof(T)));
  }
};
struct MulWide {
  template <class T>
  Wide<T> operator()(T a, T b) const {
    return Wide<T>(a) * Wide<T>(b);
  }
};
struct Mul24Lo {
  template <class T>
  T operator()(T a, T b) const {
    const int64_t x = int64_t{extend(a)} * extend(b);
    return static_cast<T>(x);
  }
  static int64_t extend(int32_t v) {
    return static_cast<int32_t>(static_cast<uint32_t>(v) << 8) >> 8;
  }
  static int64_t extend(uint32_t v) { return v & 0xffffff; }
};
struct Mul24Hi {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>((Mul24Lo::extend(a) * Mul24Lo::extend(b)) >> 16);
  }
};
template <class Mul>
struct ThenAdd {
  template <class T, class D>
  D operator()(T a, T b, D c) const {
    return Add{}(static_cast<D>(Mul{}(a, b)), c);
  }
};
template <class High>
struct MadHiSat {
  int32_t operator()(int32_t a, int32_t b, int32_t c) const {
    return saturate(int64_t{High{}(a, b)} + c);
  }
};

// The machine gives all ones for x / 0 and x for x % 0.
template <class T>
bool overflows(T a, T b) {
  return std::is_signed_v<T> && a == std::numeric_limits<T>::min() && b == static_cast<T>(-1);
}
struct Div {
  template <class T>
  T operator()(T a, T b) const {
    return b == 0 ? static_cast<T>(-1) : overflows(a, b) ? a : static_cast<T>(a / b);
  }
};
struct Rem {
  template <class T>
  T operator()(T a, T b) const {
    return b == 0 ? a : overflows(a, b) ? T{0} : static_cast<T>(a % b);
  }
};
template <class F>
struct ThenRelu {
  template <class T>
  T operator()(T a, T b) const {
    return Max{}(F{}(a, b), T{0});
  }
};
template <class F, class Half>
struct Halves {  // of a 32-bit register
  uint32_t operator()(uint32_t a, uint32_t b) const {
    const auto low = F{}(static_cast<Half>(a), static_cast<Half>(b));
    const auto high = F{}(static_cast<Half>(a >> 16), static_cast<Half>(b >> 16));
    return static_cast<uint16_t>(low) | static_cast<uint32_t>(static_cast<uint16_t>(high)) << 16;
  }
};
struct Neg {
  template <class T>
  T operator()(T a) const {
    return static_cast<T>(Unsigned<T>{0} - Unsigned<T>(a));
  }
};
struct Abs {
  template <class T>
  T operator()(T a) const {
    return a < 0 ? Neg{}(a) : a;
  }
};
struct Sad {
  template <class T>
  T operator()(T a, T b, T c) const {
    return Add{}(c, a < b ? Sub{}(b, a) : Sub{}(a, b));
  }
};
// dp4a: four byte products; A and B say how the bytes extend.
template <class A, class B>
struct Dp4a {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
    int32_t sum = 0;
    for (int i = 0; i < 32; i += 8) sum += int32_t{static_cast<A>(a >> i)} * static_cast<B>(b >> i);
    return c + static_cast<uint32_t>(sum);
  }
};
template <class A, class B, int kShift>  // kShift: 0 for .lo, 16 for .hi
struct Dp2a {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
    const uint32_t half = b >> kShift;
    const int64_t sum = int64_t{static_cast<A>(a)} * static_cast<B>(half) +
                        int64_t{static_cast<A>(a >> 16)} * static_cast<B>(half >> 8);
    return c + static_cast<uint32_t>(sum);
  }
};

template <class F>
Handler binary_of(Encoding& e, Type t) {
  return pick_integer(e, t, []<class T>(T) -> Handler { return &binary<T, F>; });
}

// add{c}, sub{c}, madc with carries: imm bit 0 takes the carry, bit 1 sets it, bit 2 subtracts.
template <class T>
Flow with_carry(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  const T* b = w.in<T>(in.b);
  T* d = w.out<T>(in.d);
  Mask carry = 0;
  for_each_lane(mask, [&](int l) {
    const bool subtract = in.imm & 4;
    const T y = subtract ? static_cast<T>(~b[l]) : b[l];
    // A borrow is kept as the inverted carry of a + ~b + 1.
    const bool flag = w.carry >> l & 1;
    const T take = in.imm & 1 ? (subtract ? !flag : flag) : (subtract ? 1 : 0);
    const unsigned __int128 sum = static_cast<unsigned __int128>(a[l]) + y + take;
    d[l] = static_cast<T>(sum);
    const bool out = (sum >> (8 * sizeof(T))) & 1;
    carry |= Mask{subtract ? !out : out} << l;
  });
  if (in.imm & 2) write_pred(w.carry, mask, carry);
  return Flow::next;
}
// mad{c}.lo/.hi with carries; imm as above
template <class T, class Mul>
Flow mad_with_carry(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  const T* b = w.in<T>(in.b);
  const T* c = w.in<T>(in.c);
  T* d = w.out<T>(in.d);
  Mask carry = 0;
  for_each_lane(mask, [&](int l) {
    const T take = in.imm & 1 ? w.carry >> l & 1 : 0;
    using U = std::make_unsigned_t<T>;
    const unsigned __int128 sum =
        static_cast<unsigned __int128>(static_cast<U>(Mul{}(a[l], b[l]))) + static_cast<U>(c[l]) +
        static_cast<U>(take);
    d[l] = static_cast<T>(sum);
    carry |= Mask((sum >> (8 * sizeof(T))) & 1) << l;
  });
  if (in.imm & 2) write_pred(w.carry, mask, carry);
  return Flow::next;
}

bool take_signed(Encoding& e) {
  const Type t = e.take_type();
  if (t != Type::s32 && t != Type::u32) e.fail(".s32 or .u32 is expected");
  return t == Type::s32;
}
// Arithmetic takes signed and unsigned types, not bits.
void expect_integer(Encoding& e, Type t, int least_bits = 16) {
  if (!is_integer(t) || bits_of(t) < least_bits)
    e.fail(std::string("type .") + name_of(t) + " is not modelled here");
}

void three(Encoding& e, Type t) {
  e.expect_operands(3, 3);
  e.out.d = e.destination(0, t);
  e.out.a = e.source(1, t);
  e.out.b = e.source(2, t);
}
void four(Encoding& e, Type t, Type wide) {
  e.expect_operands(4, 4);
  e.out.d = e.destination(0, wide);
  e.out.a = e.source(1, t);
  e.out.b = e.source(2, t);
  e.out.c = e.source(3, wide);
}
Type widened(Encoding& e, Type t) {
  switch (t) {
    case Type::u16: return Type::u32;
    case Type::s16: return Type::s32;
    case Type::u32: return Type::u64;
    case Type::s32: return Type::s64;
    default: e.fail(".wide takes 16- and 32-bit types");
  }
}

}  // namespace

// add and sub of floats are in ops_float.cpp and ops_half.cpp, which call these for the rest.
void encode_integer_add(Encoding& e, Type t, bool subtract, bool takes_carry) {
  three(e, t);
  const bool sets_carry = e.take("cc");
  if (sets_carry || takes_carry) {
    e.out.imm = (takes_carry ? 1 : 0) | (sets_carry ? 2 : 0) | (subtract ? 4 : 0);
    e.out.run = bits_of(t) == 64 ? &with_carry<uint64_t> : &with_carry<uint32_t>;
    expect_integer(e, t, 32);
  } else if (e.take("sat")) {
    if (t != Type::s32) e.fail(".sat is for .s32");
    e.out.run = subtract ? &binary<int32_t, SubSat> : &binary<int32_t, AddSat>;
  } else if (t == Type::u16x2 || t == Type::s16x2) {
    if (subtract) e.fail("not modelled");
    e.out.run = &binary<uint32_t, Halves<Add, uint16_t>>;
  } else {
    expect_integer(e, t);
    e.out.run = subtract ? binary_of<Sub>(e, t) : binary_of<Add>(e, t);
  }
}

void encode_integer_mul(Encoding& e, Type t) {
  expect_integer(e, t);
  if (e.take("wide")) {
    e.expect_operands(3, 3);
    e.out.d = e.destination(0, widened(e, t));
    e.out.a = e.source(1, t);
    e.out.b = e.source(2, t);
    if (bits_of(t) == 64) e.fail(".wide of 64 bits");
    e.out.run = pick_integer(e, t, []<class T>(T) -> Handler {
      if constexpr (sizeof(T) < 8) return &binary<T, MulWide, Wide<T>>;
      return nullptr;
    });
    return;
  }
  three(e, t);
  const int half = e.take_one_of({"lo", "hi"});
  if (half < 0) e.fail(".lo, .hi or .wide is missing");
  e.out.run = half == 0 ? binary_of<MulLo>(e, t) : binary_of<MulHi>(e, t);
}

void encode_integer_mad(Encoding& e, Type t, bool takes_carry) {
  expect_integer(e, t);
  if (e.take("wide")) {
    four(e, t, widened(e, t));
    e.out.run = pick_integer(e, t, []<class T>(T) -> Handler {
      if constexpr (sizeof(T) < 8) return &ternary<T, ThenAdd<MulWide>, Wide<T>>;
      return nullptr;
    });
    return;
  }
  four(e, t, t);
  const int half = e.take_one_of({"lo", "hi"});
  if (half < 0) e.fail(".lo, .hi or .wide is missing");
  const bool sets_carry = e.take("cc");
  if (sets_carry || takes_carry) {
    expect_integer(e, t, 32);
    e.out.imm = (takes_carry ? 1 : 0) | (sets_carry ? 2 : 0);
    e.out.run = pick_integer(e, t, [&]<class T>(T) -> Handler {
      return half == 0 ? &mad_with_carry<T, MulLo> : &mad_with_carry<T, MulHi>;
    });
  } else if (half == 1 && e.take("sat")) {
    if (t != Type::s32) e.fail(".sat is for .s32");
    e.out.run = &ternary<int32_t, MadHiSat<MulHi>>;
  } else {
    e.out.run = pick_integer(e, t, [&]<class T>(T) -> Handler {
      return half == 0 ? &ternary<T, ThenAdd<MulLo>> : &ternary<T, ThenAdd<MulHi>>;
    });
  }
}

void encode_integer_div(Encoding& e, Type t) {
  expect_integer(e, t);
  three(e, t);
  e.out.run = binary_of<Div>(e, t);
}

void encode_integer_min_max(Encoding& e, Type t, bool max) {
  const bool relu = e.take("relu");
  three(e, t);
  if (t == Type::u16x2 || t == Type::s16x2) {
    if (t == Type::u16x2) {
      if (relu) e.fail(".relu is for signed types");
      e.out.run =
          max ? &binary<uint32_t, Halves<Max, uint16_t>> : &binary<uint32_t, Halves<Min, uint16_t>>;
    } else if (relu) {
      e.out.run = max ? &binary<uint32_t, Halves<ThenRelu<Max>, int16_t>>
                      : &binary<uint32_t, Halves<ThenRelu<Min>, int16_t>>;
    } else {
      e.out.run =
          max ? &binary<uint32_t, Halves<Max, int16_t>> : &binary<uint32_t, Halves<Min, int16_t>>;
    }
  } else if (relu) {
    if (t != Type::s32) e.fail(".relu is for .s32");
    e.out.run = max ? &binary<int32_t, ThenRelu<Max>> : &binary<int32_t, ThenRelu<Min>>;
  } else {
    expect_integer(e, t);
    e.out.run = max ? binary_of<Max>(e, t) : binary_of<Min>(e, t);
  }
}

void encode_integer_neg_abs(Encoding& e, Type t, bool negate) {
  if (!is_signed(t) || bits_of(t) < 16) e.fail("a signed type is expected");
  e.expect_operands(2, 2);
  e.out.d = e.destination(0, t);
  e.out.a = e.source(1, t);
  e.out.run = pick_integer(
      e, t, [&]<class T>(T) -> Handler { return negate ? &unary<T, Neg> : &unary<T, Abs>; });
}

void add_integer_opcodes(Opcodes& ops) {
  ops["rem"] = [](Encoding& e) {
    const Type t = e.take_type();
    expect_integer(e, t);
    three(e, t);
    e.out.run = binary_of<Rem>(e, t);
  };
  ops["addc"] = [](Encoding& e) { encode_integer_add(e, e.take_type(), false, true); };
  ops["subc"] = [](Encoding& e) { encode_integer_add(e, e.take_type(), true, true); };
  ops["madc"] = [](Encoding& e) { encode_integer_mad(e, e.take_type(), true); };
  ops["mul24"] = [](Encoding& e) {
    const Type t = e.take_type();
    three(e, t);
    const int half = e.take_one_of({"hi", "lo"});
    if (half < 0) e.fail(".lo or .hi is missing");
    const bool lo = half == 1;
    if (t != Type::u32 && t != Type::s32) e.fail("mul24 takes 32-bit types");
    e.out.run = is_signed(t) ? (lo ? &binary<int32_t, Mul24Lo> : &binary<int32_t, Mul24Hi>)
                             : (lo ? &binary<uint32_t, Mul24Lo> : &binary<uint32_t, Mul24Hi>);
  };
  ops["mad24"] = [](Encoding& e) {
    const Type t = e.take_type();
    four(e, t, t);
    if (t != Type::u32 && t != Type::s32) e.fail("mad24 takes 32-bit types");
    const int half = e.take_one_of({"hi", "lo"});
    if (half < 0) e.fail(".lo or .hi is missing");
    if (half == 0 && e.take("sat")) {
      if (t != Type::s32) e.fail(".sat is for .s32");
      e.out.run = &ternary<int32_t, MadHiSat<Mul24Hi>>;
    } else if (half == 0) {
      e.out.run =
          is_signed(t) ? &ternary<int32_t, ThenAdd<Mul24Hi>> : &ternary<uint32_t, ThenAdd<Mul24Hi>>;
    } else {
      e.out.run =
          is_signed(t) ? &ternary<int32_t, ThenAdd<Mul24Lo>> : &ternary<uint32_t, ThenAdd<Mul24Lo>>;
    }
  };
  ops["sad"] = [](Encoding& e) {
    const Type t = e.take_type();
    expect_integer(e, t);
    four(e, t, t);
    e.out.run = pick_integer(e, t, []<class T>(T) -> Handler { return &ternary<T, Sad>; });
  };
  ops["dp4a"] = [](Encoding& e) {
    const bool a = take_signed(e), b = take_signed(e);
    four(e, Type::b32, Type::b32);
    e.out.run = a ? (b ? &ternary<uint32_t, Dp4a<int8_t, int8_t>>
                       : &ternary<uint32_t, Dp4a<int8_t, uint8_t>>)
                  : (b ? &ternary<uint32_t, Dp4a<uint8_t, int8_t>>
                       : &ternary<uint32_t, Dp4a<uint8_t, uint8_t>>);
  };
  ops["dp2a"] = [](Encoding& e) {
    const int half = e.take_one_of({"lo", "hi"});
    if (half < 0) e.fail(".lo or .hi is missing");
    const bool a = take_signed(e), b = take_signed(e);
    four(e, Type::b32, Type::b32);
    const auto pick = [&]<class A, class B>(A, B) -> Handler {
      return half == 0 ? &ternary<uint32_t, Dp2a<A, B, 0>> : &ternary<uint32_t, Dp2a<A, B, 16>>;
    };
    e.out.run = a ? (b ? pick(int16_t{}, int8_t{}) : pick(int16_t{}, uint8_t{}))
                  : (b ? pick(uint16_t{}, int8_t{}) : pick(uint16_t{}, uint8_t{}));
  };
}

}  // namespace ptx
