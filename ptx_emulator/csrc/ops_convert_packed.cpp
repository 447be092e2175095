// cvt to tf32 and to and from pairs of narrow floats; cvt.pack.
#include <array>

#include "encoding.h"
#include "formats.h"
#include "lanes.h"

namespace ptx {
namespace {

enum class Narrow : uint8_t { f16, bf16, e4m3, e5m2 };
constexpr Format format_of(Narrow n) {
  return n == Narrow::f16 ? kF16 : n == Narrow::bf16 ? kBF16 : n == Narrow::e4m3 ? kE4M3 : kE5M2;
}
constexpr int bits_of(Narrow n) {
  return n == Narrow::f16 || n == Narrow::bf16 ? 16 : 8;
}

// imm bits: 0 relu, 1 satfinite, 2 towards zero
template <Narrow kTo>
uint32_t narrowed(float x, int64_t flags) {
  constexpr Format kFormat = format_of(kTo);
  const Rounding r = flags & 4 ? Rounding::zero : Rounding::nearest;
  const uint32_t code = encode(x, kFormat, r, flags & 2);
  return flags & 1 && code >> (bits_of(kTo) - 1) ? 0 : code;
}
template <Narrow kTo>
uint32_t narrowed_simply(float x) {
  if constexpr (kTo == Narrow::f16) return f16_of(x);
  if constexpr (kTo == Narrow::bf16) return bf16_of(x);
  return encode(x, format_of(kTo), Rounding::nearest, true);
}

// d = {narrow(a), narrow(b)}, b in the low half
template <Narrow kTo, class D, bool kSimply>
Flow pack_two(Warp& w, const Instr& in, Mask mask) {
  const float* a = w.in<float>(in.a);
  const float* b = w.in<float>(in.b);
  const int64_t flags = in.imm;
  write_lanes(w.out<D>(in.d), mask, [=](int l) {
    const uint32_t high = kSimply ? narrowed_simply<kTo>(a[l]) : narrowed<kTo>(a[l], flags);
    const uint32_t low = kSimply ? narrowed_simply<kTo>(b[l]) : narrowed<kTo>(b[l], flags);
    return static_cast<D>(high << bits_of(kTo) | low);
  });
  return Flow::next;
}
template <Narrow kTo>
Flow narrow_one(Warp& w, const Instr& in, Mask mask) {
  const float* a = w.in<float>(in.a);
  const int64_t flags = in.imm;
  write_lanes(w.out<uint16_t>(in.d), mask,
              [=](int l) { return static_cast<uint16_t>(narrowed<kTo>(a[l], flags)); });
  return Flow::next;
}
template <Narrow kTo>
Flow narrow_halves(Warp& w, const Instr& in, Mask mask) {
  const uint32_t* a = w.in<uint32_t>(in.a);
  const int64_t flags = in.imm;
  write_lanes(w.out<uint16_t>(in.d), mask, [=](int l) {
    const uint32_t high = narrowed<kTo>(float_of_f16(static_cast<uint16_t>(a[l] >> 16)), flags);
    const uint32_t low = narrowed<kTo>(float_of_f16(static_cast<uint16_t>(a[l])), flags);
    return static_cast<uint16_t>(high << 8 | low);
  });
  return Flow::next;
}

// The f16 of every code of an 8-bit format.
template <Narrow kFrom>
const std::array<uint16_t, 256>& halves_of() {
  static const auto table = [] {
    std::array<uint16_t, 256> t;
    for (uint32_t code = 0; code < 256; ++code)
      t[code] = f16_of(static_cast<float>(decode(code, format_of(kFrom))));
    return t;
  }();
  return table;
}
template <Narrow kFrom>
Flow widen_halves(Warp& w, const Instr& in, Mask mask) {
  const uint16_t* a = w.in<uint16_t>(in.a);
  const uint16_t* table = halves_of<kFrom>().data();
  const bool relu = in.imm & 1;
  write_lanes(w.out<uint32_t>(in.d), mask, [=](int l) {
    uint32_t high = table[a[l] >> 8], low = table[a[l] & 255];
    if (relu) {
      high = high & 0x8000 ? 0 : high;
      low = low & 0x8000 ? 0 : low;
    }
    return high << 16 | low;
  });
  return Flow::next;
}

// 10 bits of fraction in an fp32. imm bit 3: ties away from zero; others as above.
uint32_t tf32_of(uint32_t bits, int64_t flags) {
  constexpr uint32_t kLast = 0x2000, kInfinity = 0x7f800000, kLargest = 0x7f7fe000;
  const uint32_t sign = bits & 0x80000000, abs = bits & 0x7fffffff;
  const uint32_t tie = flags & 4 ? 0 : flags & 8 ? kLast / 2 : kLast / 2 - 1 + (abs / kLast & 1);
  uint32_t code = (abs + tie) & ~(kLast - 1);
  code = abs == kInfinity ? kInfinity : code;
  code = flags & 2 && code > kLargest ? kLargest : code;
  code = flags & 1 && sign ? 0 : sign | code;
  return abs > kInfinity ? kNan32 : code;
}
Flow to_tf32(Warp& w, const Instr& in, Mask mask) {
  const uint32_t* a = w.in<uint32_t>(in.a);
  const int64_t flags = in.imm;
  write_lanes(w.out<uint32_t>(in.d), mask, [=](int l) { return tf32_of(a[l], flags); });
  return Flow::next;
}

template <Narrow kTo>
void encode_pair(Encoding& e, Type to, Type from) {
  constexpr bool kByte = bits_of(kTo) == 8;
  if (e.out.imm & 4 && kByte) e.fail("only .rn is for 8-bit floats");
  if (!(e.out.imm & 2) && kByte) e.fail(".satfinite is missing");
  e.out.d = e.destination(0, kByte ? Type::b16 : to);
  if (from == Type::f32) {
    e.expect_operands(3, 3);
    e.out.a = e.source(1, from);
    e.out.b = e.source(2, from);
    using D = std::conditional_t<kByte, uint16_t, uint32_t>;
    const bool simply = kByte ? e.out.imm == 2 : e.out.imm == 0;
    e.out.run = simply ? &pack_two<kTo, D, true> : &pack_two<kTo, D, false>;
  } else if (from == Type::f16x2 && kByte) {
    e.expect_operands(2, 2);
    e.out.a = e.source(1, from);
    e.out.run = narrow_halves<kTo>;
  } else {
    e.fail(std::string("from .") + name_of(from) + " is not modelled");
  }
}

// cvt.pack.sat: b and then a in the low bits, above them what is low in c. small: bits of an
// element; imm: whether it is signed
Flow pack_integers(Warp& w, const Instr& in, Mask mask) {
  const int32_t* a = w.in<int32_t>(in.a);
  const int32_t* b = w.in<int32_t>(in.b);
  const uint32_t* c = w.in<uint32_t>(in.c);
  const int bits = in.small;
  const uint32_t ones = (1u << bits) - 1;
  const int32_t low = in.imm ? -(1 << (bits - 1)) : 0;
  const int32_t high = low + static_cast<int32_t>(ones);
  const auto clamp = [=](int32_t x) {
    return static_cast<uint32_t>(x < low ? low : x > high ? high : x) & ones;
  };
  write_lanes(w.out<uint32_t>(in.d), mask, [=](int l) {
    const uint32_t two = clamp(a[l]) << bits | clamp(b[l]);
    return bits == 16 ? two : two | c[l] << (2 * bits);
  });
  return Flow::next;
}
void encode_pack(Encoding& e) {
  if (!e.take("sat")) e.fail(".sat is missing");
  const int narrow = e.take_one_of({"u2", "s2", "u4", "s4"});
  if (narrow >= 0) {
    e.out.small = narrow < 2 ? 2 : 4;
    e.out.imm = narrow & 1;
  } else {
    const Type to = e.take_type();
    if (!is_integer(to) || bits_of(to) > 16) e.fail("to this type is not modelled");
    e.out.small = static_cast<uint8_t>(bits_of(to));
    e.out.imm = is_signed(to);
  }
  if (e.take_type() != Type::s32) e.fail("from other types than .s32 is not modelled");
  const bool third = e.out.small < 16;
  if (third && e.take_type() != Type::b32) e.fail(".b32 is expected");
  e.expect_operands(third ? 4 : 3, third ? 4 : 3);
  e.out.d = e.destination(0, Type::b32);
  e.out.a = e.source(1, Type::s32);
  e.out.b = e.source(2, Type::s32);
  e.out.c = third ? e.source(3, Type::b32) : e.out.b;
  e.out.run = pack_integers;
}

}  // namespace

// Takes the types only if the conversion is one of this file's.
bool encode_packed_conversion(Encoding& e) {
  if (e.take("pack")) {
    encode_pack(e);
    return true;
  }
  const bool relu = e.take("relu"), satfinite = e.take("satfinite");
  const auto [to, from] = e.peek_types();
  const bool single = (to == Type::f16 || to == Type::bf16) && (relu || satfinite);
  const bool packed = to == Type::f16x2 || to == Type::bf16x2 || to == Type::tf32 ||
                      to == Type::e4m3x2 || to == Type::e5m2x2;
  if (!single && !packed) {
    if (relu || satfinite) e.fail(".relu and .satfinite are not for this type");
    return false;
  }
  e.take_type();
  e.take_type();
  const int rounding = e.take_one_of({"rn", "rz", "rna"});
  if (rounding < 0) e.fail("a rounding is missing");
  e.out.imm = (relu ? 1 : 0) | (satfinite ? 2 : 0) | (rounding == 1 ? 4 : rounding == 2 ? 8 : 0);
  if ((rounding == 2) && to != Type::tf32) e.fail(".rna is for .tf32");
  if (to == Type::tf32 || single) {
    if (from != Type::f32) e.fail("from other types than .f32 is not modelled");
    if (to == Type::tf32 && rounding == 2 && relu) e.fail(".rna has no .relu");
    if (to == Type::tf32 && rounding != 2 && satfinite) e.fail(".satfinite goes with .rna");
    e.expect_operands(2, 2);
    e.out.d = e.destination(0, to == Type::tf32 ? Type::b32 : to);
    e.out.a = e.source(1, from);
    e.out.run = to == Type::tf32  ? &to_tf32
                : to == Type::f16 ? &narrow_one<Narrow::f16>
                                  : &narrow_one<Narrow::bf16>;
  } else if (from == Type::e4m3x2 || from == Type::e5m2x2) {
    if (to != Type::f16x2 || rounding != 0 || satfinite) e.fail("not modelled for these types");
    e.expect_operands(2, 2);
    e.out.d = e.destination(0, to);
    e.out.a = e.source(1, Type::b16);
    e.out.run = from == Type::e4m3x2 ? &widen_halves<Narrow::e4m3> : &widen_halves<Narrow::e5m2>;
  } else {
    switch (to) {
      case Type::f16x2: encode_pair<Narrow::f16>(e, to, from); break;
      case Type::bf16x2: encode_pair<Narrow::bf16>(e, to, from); break;
      case Type::e4m3x2: encode_pair<Narrow::e4m3>(e, to, from); break;
      default: encode_pair<Narrow::e5m2>(e, to, from); break;
    }
  }
  return true;
}

}  // namespace ptx
