// cvt between single numbers; packed and narrow formats are in ops_convert_packed.cpp.
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "encoding.h"
#include "formats.h"
#include "lanes.h"

namespace ptx {

bool encode_packed_conversion(Encoding& e);  // false if it is none

namespace {

// In general a conversion takes three steps: lanes of the source to int64 or double, the
// conversion proper, and lanes to the destination. Registers may be wider than the types.
union Lanes {
  int64_t i[kLanes];  // unsigned ones as their bits
  double f[kLanes];   // every format fits
};
using Load = void (*)(const uint8_t* from, Lanes& x);
using Store = void (*)(uint8_t* to, Mask mask, const Lanes& x);

template <class T, class Register>
void load_integer(const uint8_t* from, Lanes& x) {
  const Register* r = reinterpret_cast<const Register*>(from);
  for (int l = 0; l < kLanes; ++l) x.i[l] = static_cast<int64_t>(static_cast<T>(r[l]));
}
// Values already lie within T; the register is filled by its sign or with zeros.
template <class T, class Register>
void store_integer(uint8_t* to, Mask mask, const Lanes& x) {
  write_lanes(reinterpret_cast<Register*>(to), mask,
              [&](int l) { return static_cast<Register>(static_cast<T>(x.i[l])); });
}

struct AsF16 {
  using Bits = uint16_t;
  static double decode(uint16_t b) { return float_of_f16(b); }
};
struct AsBF16 {
  using Bits = uint16_t;
  static double decode(uint16_t b) { return float_of_bf16(b); }
};
template <bool kFlush>
struct AsF32 {
  using Bits = uint32_t;
  static double decode(uint32_t b) {
    const float x = std::bit_cast<float>(b);
    return kFlush ? flush(x) : x;
  }
};
struct AsF64 {
  using Bits = uint64_t;
  static double decode(uint64_t b) { return std::bit_cast<double>(b); }
};
template <class Format, class Register>
void load_float(const uint8_t* from, Lanes& x) {
  const Register* r = reinterpret_cast<const Register*>(from);
  for (int l = 0; l < kLanes; ++l)
    x.f[l] = Format::decode(static_cast<typename Format::Bits>(r[l]));
}
template <class Register>
void store_bits(uint8_t* to, Mask mask, const Lanes& x) {
  write_lanes(reinterpret_cast<Register*>(to), mask,
              [&](int l) { return static_cast<Register>(x.i[l]); });
}

// Null if the register does not hold the type.
template <class Pick>
auto pick_register(int bytes, int least, Pick pick) -> decltype(pick(uint64_t{})) {
  if (bytes < least) return nullptr;
  switch (bytes) {
    case 1: return pick(uint8_t{});
    case 2: return pick(uint16_t{});
    case 4: return pick(uint32_t{});
    case 8: return pick(uint64_t{});
    default: return nullptr;
  }
}
template <class Pick>
auto pick_any_integer(Type t, Pick pick) -> decltype(pick(uint64_t{})) {
  switch (t) {
    case Type::u8: return pick(uint8_t{});
    case Type::u16: return pick(uint16_t{});
    case Type::u32: return pick(uint32_t{});
    case Type::u64: return pick(uint64_t{});
    case Type::s8: return pick(int8_t{});
    case Type::s16: return pick(int16_t{});
    case Type::s32: return pick(int32_t{});
    case Type::s64: return pick(int64_t{});
    default: return nullptr;
  }
}

Load load_of(Type t, int register_bytes, bool ftz) {
  if (is_integer(t))
    return pick_any_integer(t, [&]<class T>(T) {
      return pick_register(register_bytes, sizeof(T),
                           []<class R>(R) -> Load { return &load_integer<T, R>; });
    });
  const auto load = [&]<class Format>(Format) {
    return pick_register(register_bytes, sizeof(typename Format::Bits),
                         []<class R>(R) -> Load { return &load_float<Format, R>; });
  };
  switch (t) {
    case Type::f16: return load(AsF16{});
    case Type::bf16: return load(AsBF16{});
    case Type::f32: return ftz ? load(AsF32<true>{}) : load(AsF32<false>{});
    case Type::f64: return load(AsF64{});
    default: return nullptr;
  }
}
Store store_of(Type t, int register_bytes) {
  if (is_integer(t))
    return pick_any_integer(t, [&]<class T>(T) {
      return pick_register(register_bytes, sizeof(T),
                           []<class R>(R) -> Store { return &store_integer<T, R>; });
    });
  return pick_register(register_bytes, bytes_of(t),
                       []<class R>(R) -> Store { return &store_bits<R>; });
}

struct Rule {
  Type to = Type::none, from = Type::none;
  uint8_t to_bytes = 0, from_bytes = 0;  // of the registers
  Rounding rounding = Rounding::nearest;
  bool to_integer = false;  // the rounding is one to an integer
  bool sat = false, ftz = false;
};

double round_to_integer(double x, Rounding r) {
  switch (r) {
    case Rounding::nearest: return std::nearbyint(x);
    case Rounding::zero: return std::trunc(x);
    case Rounding::down: return std::floor(x);
    default: return std::ceil(x);
  }
}

int64_t clamped(int64_t x, bool from_unsigned, Type to) {
  const int bits = bits_of(to);
  if (is_signed(to)) {
    const int64_t high =
        bits == 64 ? std::numeric_limits<int64_t>::max() : (int64_t{1} << (bits - 1)) - 1;
    if (from_unsigned && x < 0) return high;  // 2^63 and more
    return x > high ? high : x < -high - 1 ? -high - 1 : x;
  }
  if (!from_unsigned && x < 0) return 0;
  const uint64_t high = bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
  return static_cast<uint64_t>(x) > high ? static_cast<int64_t>(high) : x;
}

// Out of range saturates; NaN is 0 or, where 64 bits are involved, the topmost bit.
int64_t integer_of(double x, Rounding r, Type to, Type from) {
  const int bits = bits_of(to);
  const bool is_signed_type = is_signed(to);
  if (x != x)
    return from == Type::f64 || bits == 64 ? static_cast<int64_t>(~uint64_t{0} << (bits - 1)) : 0;
  const double whole = round_to_integer(x, r);
  if (is_signed_type) {
    const double limit = std::ldexp(1.0, bits - 1);
    const uint64_t high = (uint64_t{1} << (bits - 1)) - 1;
    return whole >= limit    ? static_cast<int64_t>(high)
           : whole <= -limit ? static_cast<int64_t>(~high)
                             : static_cast<int64_t>(whole);
  }
  if (whole <= 0) return 0;
  if (whole >= std::ldexp(1.0, bits)) return static_cast<int64_t>(~uint64_t{0} >> (64 - bits));
  return static_cast<int64_t>(static_cast<uint64_t>(whole));
}

double step(double x, bool up) {
  return std::nextafter(
      x, up ? std::numeric_limits<double>::infinity() : -std::numeric_limits<double>::infinity());
}
// x is near plus error, near being its nearest double.
double directed(double near, double error, Rounding r) {
  if (error == 0 || r == Rounding::nearest) return near;
  const bool up = r == Rounding::up || (r == Rounding::zero && near < 0);
  return up ? (error > 0 ? step(near, true) : near) : (error < 0 ? step(near, false) : near);
}

// The bits of x in a float format.
uint64_t float_bits(double x, Type to, Rounding r) {
  switch (to) {
    case Type::f16: return encode(x, kF16, r, false);
    case Type::bf16: return encode(x, kBF16, r, false);
    case Type::f32: return std::bit_cast<uint32_t>(canonical(to_float(x, r)));
    default: return std::bit_cast<uint64_t>(x);
  }
}
uint64_t clamp_to_one(uint64_t bits, Type to) {
  const int width = bits_of(to);
  const uint64_t one = to == Type::f16    ? 0x3c00
                       : to == Type::bf16 ? 0x3f80
                       : to == Type::f32  ? 0x3f800000
                                          : 0x3ff0000000000000;
  const uint64_t infinity = to == Type::f16    ? 0x7c00
                            : to == Type::bf16 ? 0x7f80
                            : to == Type::f32  ? 0x7f800000
                                               : 0x7ff0000000000000;
  const uint64_t abs = bits & (~uint64_t{0} >> (65 - width));
  if (bits != abs || abs > infinity) return 0;
  return abs > one ? one : abs;
}

void integers_to_floats(Lanes& x, const Rule& rule) {
  const Type to = rule.to;
  const Rounding r = rule.rounding;
  const bool is_unsigned = !is_signed(rule.from);
  for (int l = 0; l < kLanes; ++l) {
    const int64_t n = x.i[l];
    const double near =
        is_unsigned ? static_cast<double>(static_cast<uint64_t>(n)) : static_cast<double>(n);
    const __int128 exact = is_unsigned ? static_cast<__int128>(static_cast<uint64_t>(n)) : n;
    const double error = static_cast<double>(exact - static_cast<__int128>(near));
    uint64_t bits = to == Type::f64 ? float_bits(directed(near, error, r), to, r)
                                    : float_bits(to_odd(near, error), to, r);
    if (rule.sat) bits = clamp_to_one(bits, to);
    x.i[l] = static_cast<int64_t>(bits);
  }
}
void floats_to_floats(Lanes& x, const Rule& rule) {
  const Type to = rule.to;
  const Rounding r = rule.rounding;
  for (int l = 0; l < kLanes; ++l) {
    const double value = rule.to_integer ? round_to_integer(x.f[l], r) : x.f[l];
    uint64_t bits = float_bits(value, to, r);
    if (rule.ftz && to == Type::f32)
      bits = std::bit_cast<uint32_t>(flush(std::bit_cast<float>(static_cast<uint32_t>(bits))));
    if (rule.sat) bits = clamp_to_one(bits, to);
    x.i[l] = static_cast<int64_t>(bits);
  }
}

// imm: a Rule
Flow convert(Warp& w, const Instr& in, Mask mask) {
  const Rule rule = std::bit_cast<Rule>(in.imm);
  const Type to = rule.to, from = rule.from;
  Lanes x;
  load_of(from, rule.from_bytes, rule.ftz)(w.in<uint8_t>(in.a), x);
  if (is_integer(from) && is_integer(to)) {
    if (rule.sat)
      for (int l = 0; l < kLanes; ++l) x.i[l] = clamped(x.i[l], !is_signed(from), to);
  } else if (is_integer(from)) {
    integers_to_floats(x, rule);
  } else if (is_integer(to)) {
    for (int l = 0; l < kLanes; ++l) x.i[l] = integer_of(x.f[l], rule.rounding, to, from);
  } else {
    floats_to_floats(x, rule);
  }
  store_of(to, rule.to_bytes)(w.out<uint8_t>(in.d), mask, x);
  return Flow::next;
}

// What compilers emit most goes in one step.
template <class D>
struct Cast {
  template <class T>
  D operator()(T a) const {
    return static_cast<D>(a);
  }
};
struct ToF16 {
  uint16_t operator()(float a) const { return f16_of(a); }
};
struct ToBF16 {
  uint16_t operator()(float a) const { return bf16_of(a); }
};
struct FromF16 {
  float operator()(uint16_t a) const { return float_of_f16(a); }
};
struct FromBF16 {
  float operator()(uint16_t a) const { return float_of_bf16(a); }
};
template <class D, bool kNearest>
struct ToInteger {  // towards zero if not to the nearest
  D operator()(float a) const {
    constexpr double kLow = std::numeric_limits<D>::min(), kHigh = std::numeric_limits<D>::max();
    const double whole = kNearest ? std::nearbyint(double{a}) : std::trunc(double{a});
    const double low = whole > kLow ? whole : kLow, both = low < kHigh ? low : kHigh;
    return static_cast<D>(a == a ? both : 0);
  }
};

Handler quick(const Rule& r) {
  const bool exact_registers = r.to_bytes == bytes_of(r.to) && r.from_bytes == bytes_of(r.from);
  if (!exact_registers || r.sat || r.to_bytes < 2 || r.from_bytes < 2) return nullptr;
  if (is_integer(r.from) && is_integer(r.to))
    return pick_any_integer(r.from, [&]<class S>(S) {
      return pick_any_integer(r.to, []<class D>(D) -> Handler { return &unary<S, Cast<D>, D>; });
    });
  const bool to_float = r.to == Type::f32 && r.rounding == Rounding::nearest;
  if (to_float && r.from == Type::s32) return &unary<int32_t, Cast<float>, float>;
  if (to_float && r.from == Type::u32) return &unary<uint32_t, Cast<float>, float>;
  if (r.from == Type::f32 && r.to_integer &&
      (r.rounding == Rounding::nearest || r.rounding == Rounding::zero)) {
    const bool nearest = r.rounding == Rounding::nearest;
    if (r.to == Type::s32)
      return nearest ? &unary<float, ToInteger<int32_t, true>, int32_t>
                     : &unary<float, ToInteger<int32_t, false>, int32_t>;
    if (r.to == Type::u32)
      return nearest ? &unary<float, ToInteger<uint32_t, true>, uint32_t>
                     : &unary<float, ToInteger<uint32_t, false>, uint32_t>;
  }
  if (r.ftz || r.to_integer || r.rounding != Rounding::nearest) return nullptr;
  if (r.from == Type::f32 && r.to == Type::f16) return &unary<float, ToF16, uint16_t>;
  if (r.from == Type::f32 && r.to == Type::bf16) return &unary<float, ToBF16, uint16_t>;
  if (r.from == Type::f16 && r.to == Type::f32) return &unary<uint16_t, FromF16, float>;
  if (r.from == Type::bf16 && r.to == Type::f32) return &unary<uint16_t, FromBF16, float>;
  return nullptr;
}

bool is_number(Type t) {
  return is_integer(t) || t == Type::f16 || t == Type::bf16 || t == Type::f32 || t == Type::f64;
}
// Whether every value of `from` is one of `to`.
bool widens(Type to, Type from) {
  return to == from || bits_of(to) > bits_of(from);
}
bool can_saturate(Type to, Type from) {
  if (to == Type::bf16 || from == Type::bf16) return false;
  if (!is_integer(to) || !is_integer(from)) return true;
  const bool fits = is_signed(to) == is_signed(from) ? bits_of(to) >= bits_of(from)
                                                     : is_signed(to) && bits_of(to) > bits_of(from);
  return !fits;
}

void cvt(Encoding& e) {
  if (encode_packed_conversion(e)) return;
  Rule r;
  r.to = e.take_type();
  r.from = e.take_type();
  if (!is_number(r.to) || !is_number(r.from))
    e.fail(std::string("from .") + name_of(r.from) + " to ." + name_of(r.to) + " is not modelled");
  r.sat = e.take("sat");
  if (r.sat && !can_saturate(r.to, r.from)) e.fail("nothing to saturate");
  r.ftz = e.take("ftz");
  const int whole = e.take_one_of({"rni", "rzi", "rmi", "rpi"});
  const int nearby = whole < 0 ? e.take_one_of({"rn", "rz", "rm", "rp"}) : -1;
  r.to_integer = whole >= 0;
  r.rounding = static_cast<Rounding>(whole >= 0 ? whole : nearby >= 0 ? nearby : 0);
  const bool from_integer = is_integer(r.from), to_integer = is_integer(r.to);
  if (from_integer && to_integer) {
    if (whole >= 0 || nearby >= 0) e.fail("conversions of integers don't round");
  } else if (to_integer) {
    if (whole < 0) e.fail("a rounding to integers is missing");
  } else if (from_integer) {
    if (nearby < 0) e.fail("a rounding is missing");
  } else if (whole >= 0) {
    if (r.to != r.from) e.fail("rounding to an integer between different types");
  } else if (nearby < 0 && !widens(r.to, r.from)) {
    e.fail("a rounding is missing");
  } else if (nearby >= 0 && widens(r.to, r.from) && (r.from != Type::bf16 || r.to == r.from)) {
    e.fail("an exact conversion does not round");
  }
  if (r.ftz && r.to != Type::f32 && r.from != Type::f32) e.fail(".ftz is for .f32");
  e.expect_operands(2, 2);
  int to_bytes = 0, from_bytes = 0;
  e.out.d = e.wide_destination(e.operand(0), r.to, to_bytes);
  e.out.a = e.wide_source(e.operand(1), r.from, from_bytes);
  r.to_bytes = static_cast<uint8_t>(to_bytes);
  r.from_bytes = static_cast<uint8_t>(from_bytes);
  if (e.out.d == kNoRef) e.fail("a register is expected");
  // ptxas, too, takes bf16 only with registers as wide as the types.
  const bool exact_registers = to_bytes == bytes_of(r.to) && from_bytes == bytes_of(r.from);
  const bool bytes = bits_of(r.to) == 8 || bits_of(r.from) == 8;
  if ((r.to == Type::bf16 || r.from == Type::bf16) && (bytes || !exact_registers))
    e.fail("bf16 with registers of this width");
  if (!load_of(r.from, from_bytes, r.ftz) || !store_of(r.to, to_bytes))
    e.fail(std::string("from .") + name_of(r.from) + " to ." + name_of(r.to) +
           " in these registers is not modelled");
  e.out.imm = std::bit_cast<int64_t>(r);
  const Handler one_step = quick(r);
  e.out.run = one_step ? one_step : &convert;
}

}  // namespace

void add_convert_opcodes(Opcodes& ops) {
  ops["cvt"] = cvt;
}

}  // namespace ptx
