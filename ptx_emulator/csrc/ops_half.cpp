// Arithmetic of f16 and bf16, alone and in pairs. A pair's lanes are 64 halves in a row.
#include <cmath>
#include <string_view>

#include "encoding.h"
#include "formats.h"
#include "lanes.h"

namespace ptx {
namespace {

constexpr uint16_t kSign = 0x8000, kNanHalf = 0x7fff;

template <bool kFlush>
struct F16 {
  static constexpr uint16_t kOne = 0x3c00, kInfinity = 0x7c00;
  static uint16_t flushed(uint16_t code) {
    return kFlush && !(code & kInfinity) ? code & kSign : code;
  }
  static float decode(uint16_t code) { return float_of_f16(code); }
  static uint16_t encode(float x) { return f16_of(x); }
};
template <bool kFlush>
struct BF16 {
  static constexpr uint16_t kOne = 0x3f80, kInfinity = 0x7f80;
  static uint16_t flushed(uint16_t code) {
    return kFlush && !(code & kInfinity) ? code & kSign : code;
  }
  static float decode(uint16_t code) { return float_of_bf16(code); }
  static uint16_t encode(float x) { return bf16_of(x); }
};

enum class Clamp { none, sat, relu };
template <Clamp kClamp, class Format>
uint16_t clamp(uint16_t code) {  // NaN is the canonical one, without a sign
  if (kClamp == Clamp::none) return code;
  const uint16_t positive = code & kSign ? 0 : code;
  if (kClamp == Clamp::relu) return positive;
  return positive > Format::kInfinity ? 0 : positive > Format::kOne ? Format::kOne : positive;
}

// The exact result in double, or that rounded to odd, so that the format's rounding is the only
// one.
struct Add {
  double operator()(double a, double b) const { return add_to_odd(a, b); }
};
struct Sub {
  double operator()(double a, double b) const { return add_to_odd(a, -b); }
};
struct Mul {
  double operator()(double a, double b) const { return a * b; }
};
struct Fma {
  double operator()(double a, double b, double c) const { return add_to_odd(a * b, c); }
};
// Far within the error that the machine promises.
struct Ex2 {
  double operator()(double a) const { return std::exp2(static_cast<float>(a)); }
};
struct Tanh {
  double operator()(double a) const { return std::tanh(static_cast<float>(a)); }
};
template <class F, class Format, Clamp kClamp>
struct Rounded {
  static double in(uint16_t code) { return Format::decode(Format::flushed(code)); }
  template <class... Codes>
  uint16_t operator()(Codes... codes) const {
    const float x = narrow_to_odd(F{}(in(codes)...));
    return clamp<kClamp, Format>(Format::flushed(Format::encode(x)));
  }
};

// These pick one of their inputs.
template <class Format>
struct Neg {
  uint16_t operator()(uint16_t a) const { return Format::flushed(a) ^ kSign; }
};
template <class Format>
struct Abs {
  uint16_t operator()(uint16_t a) const { return Format::flushed(a) & ~kSign; }
};
template <class Format, bool kMax, bool kNan, bool kXorSign>
struct MinMax {
  uint16_t operator()(uint16_t a, uint16_t b) const {
    const uint16_t sign = kXorSign ? (a ^ b) & kSign : 0;
    a = Format::flushed(a) & (kXorSign ? ~kSign : ~0);
    b = Format::flushed(b) & (kXorSign ? ~kSign : ~0);
    const bool a_nan = (a & ~kSign) > Format::kInfinity, b_nan = (b & ~kSign) > Format::kInfinity;
    // Codes in the order of their numbers, -0 before +0.
    const int a_order = a & kSign ? -1 - (a & ~kSign) : a;
    const int b_order = b & kSign ? -1 - (b & ~kSign) : b;
    const uint16_t chosen = (a_order < b_order) == kMax ? b : a;
    const uint16_t number = (a_nan ? b : b_nan ? a : chosen) | sign;
    return (kNan ? a_nan | b_nan : a_nan & b_nan) ? kNanHalf : number;
  }
};

template <class F, bool kPair, int kArity>
Flow halves(Warp& w, const Instr& in, Mask mask) {
  constexpr int kCount = kPair ? 2 * kLanes : kLanes;
  const uint16_t* a = w.in<uint16_t>(in.a);
  const uint16_t* b = kArity > 1 ? w.in<uint16_t>(in.b) : a;
  const uint16_t* c = kArity > 2 ? w.in<uint16_t>(in.c) : a;
  uint16_t out[kCount];
#pragma GCC ivdep
  for (int i = 0; i < kCount; ++i) {
    if constexpr (kArity == 1)
      out[i] = F{}(a[i]);
    else if constexpr (kArity == 2)
      out[i] = F{}(a[i], b[i]);
    else
      out[i] = F{}(a[i], b[i], c[i]);
  }
  if constexpr (kPair) {
    uint32_t pairs[kLanes];
    std::memcpy(pairs, out, sizeof(out));
    blend(w.out<uint32_t>(in.d), pairs, mask);
  } else {
    blend(w.out<uint16_t>(in.d), out, mask);
  }
  return Flow::next;
}

bool is_pair(Type t) {
  return t == Type::f16x2 || t == Type::bf16x2;
}
bool is_bf16(Type t) {
  return t == Type::bf16 || t == Type::bf16x2;
}

// pick(F16<..>{} or BF16<..>{}), with .ftz taken
template <class Pick>
Handler pick_format(Encoding& e, Type t, Pick pick) {
  if (is_bf16(t)) return pick(BF16<false>{});
  return e.take("ftz") ? pick(F16<true>{}) : pick(F16<false>{});
}
template <class F, int kArity>
Handler handler(Type t) {
  return is_pair(t) ? &halves<F, true, kArity> : &halves<F, false, kArity>;
}

template <class F, int kArity>
Handler arithmetic(Encoding& e, Type t) {
  if (!e.take("rn") && kArity == 3) e.fail(".rn is missing");
  const bool relu = kArity == 3 && e.take("relu"), sat = !is_bf16(t) && !relu && e.take("sat");
  return pick_format(e, t, [&]<class Format>(Format) {
    if (relu) return handler<Rounded<F, Format, Clamp::relu>, kArity>(t);
    return sat ? handler<Rounded<F, Format, Clamp::sat>, kArity>(t)
               : handler<Rounded<F, Format, Clamp::none>, kArity>(t);
  });
}

template <bool kMax>
Handler min_max(Encoding& e, Type t) {
  const bool nan = e.take("NaN"), xorsign = e.take("xorsign");
  if (xorsign && !e.take("abs")) e.fail(".abs is missing");
  return pick_format(e, t, [&]<class Format>(Format) {
    if (nan)
      return xorsign ? handler<MinMax<Format, kMax, true, true>, 2>(t)
                     : handler<MinMax<Format, kMax, true, false>, 2>(t);
    return xorsign ? handler<MinMax<Format, kMax, false, true>, 2>(t)
                   : handler<MinMax<Format, kMax, false, false>, 2>(t);
  });
}

Handler exponential(Encoding& e, Type t) {
  // Of bf16 there are only flushing forms, of f16 none.
  if (is_bf16(t) != e.take("ftz")) e.fail("ex2 of bf16 has .ftz, that of f16 has not");
  if (is_bf16(t)) return handler<Rounded<Ex2, BF16<true>, Clamp::none>, 1>(t);
  return handler<Rounded<Ex2, F16<false>, Clamp::none>, 1>(t);
}
Handler hyperbolic_tangent(Encoding&, Type t) {
  if (is_bf16(t)) return handler<Rounded<Tanh, BF16<false>, Clamp::none>, 1>(t);
  return handler<Rounded<Tanh, F16<false>, Clamp::none>, 1>(t);
}

}  // namespace

bool is_half(Type t) {
  return is_pair(t) || t == Type::f16 || t == Type::bf16;
}

// The opcodes are those of ops_float.cpp, which hands over the types of this file.
void encode_half(Encoding& e, Type t) {
  const std::string_view op = e.opcode();
  int sources = 2;
  if (op == "add") {
    e.out.run = arithmetic<Add, 2>(e, t);
  } else if (op == "sub") {
    e.out.run = arithmetic<Sub, 2>(e, t);
  } else if (op == "mul") {
    e.out.run = arithmetic<Mul, 2>(e, t);
  } else if (op == "fma") {
    e.out.run = arithmetic<Fma, 3>(e, t);
    sources = 3;
  } else if (op == "min") {
    e.out.run = min_max<false>(e, t);
  } else if (op == "max") {
    e.out.run = min_max<true>(e, t);
  } else {
    sources = 1;
    if (op == "neg")
      e.out.run = pick_format(e, t, [&]<class F>(F) { return handler<Neg<F>, 1>(t); });
    else if (op == "abs")
      e.out.run = pick_format(e, t, [&]<class F>(F) { return handler<Abs<F>, 1>(t); });
    else if (op == "ex2")
      e.out.run = exponential(e, t);
    else if (op == "tanh")
      e.out.run = hyperbolic_tangent(e, t);
    else
      e.fail("not modelled for 16-bit floats");
  }
  e.expect_operands(sources + 1, sources + 1);
  e.out.d = e.destination(0, t);
  e.out.a = e.source(1, t);
  if (sources > 1) e.out.b = e.source(2, t);
  if (sources > 2) e.out.c = e.source(3, t);
}

}  // namespace ptx
