// fp32 and fp64 arithmetic. Integer and 16-bit forms of the same opcodes are handed on.
#include <cmath>

#include "encoding.h"
#include "formats.h"
#include "lanes.h"

namespace ptx {

void encode_integer_add(Encoding& e, Type t, bool subtract, bool takes_carry);
void encode_integer_mul(Encoding& e, Type t);
void encode_integer_mad(Encoding& e, Type t, bool takes_carry);
void encode_integer_div(Encoding& e, Type t);
void encode_integer_min_max(Encoding& e, Type t, bool max);
void encode_integer_neg_abs(Encoding& e, Type t, bool negate);
bool is_half(Type t);
void encode_half(Encoding& e, Type t);

namespace {

// What surrounds an operation: flushed inputs and result, clamping to [0, 1].
template <class F, bool kFlush, bool kSat>
struct Around {
  template <class T>
  T in(T x) const {
    if constexpr (kFlush)
      return flush(x);
    else
      return x;
  }
  template <class T>
  T out(T x) const {
    x = canonical(x);
    if constexpr (kFlush) x = flush(x);
    if constexpr (kSat) x = x > 0 ? (x < 1 ? x : T{1}) : T{0};  // NaN becomes 0
    return x;
  }
  template <class T>
  T operator()(T a) const {
    return out(F{}(in(a)));
  }
  template <class T>
  T operator()(T a, T b) const {
    return out(F{}(in(a), in(b)));
  }
  template <class T>
  T operator()(T a, T b, T c) const {
    return out(F{}(in(a), in(b), in(c)));
  }
};

template <Rounding R>
struct Add {
  float operator()(float a, float b) const {
    return R == Rounding::nearest ? a + b : zero_sum(a, b, to_float(add_to_odd(a, b), R));
  }
  double operator()(double a, double b) const { return a + b; }
  // x - x is -0 when rounding down.
  static float zero_sum(float a, float b, float s) {
    return s == 0 && R == Rounding::down && a == -b && a != 0                      ? -0.0f
           : s == 0 && R == Rounding::down && (std::signbit(a) || std::signbit(b)) ? -0.0f
                                                                                   : s;
  }
};
template <Rounding R>
struct Sub {
  template <class T>
  T operator()(T a, T b) const {
    return Add<R>{}(a, -b);
  }
};
template <Rounding R>
struct Mul {
  float operator()(float a, float b) const {
    return R == Rounding::nearest ? a * b : to_float(double{a} * b, R);
  }
  double operator()(double a, double b) const { return a * b; }
};
template <Rounding R>
struct Fma {
  float operator()(float a, float b, float c) const {
    if (R == Rounding::nearest) return std::fma(a, b, c);
    const double p = double{a} * b;
    const double s = add_to_odd(p, c);  // zero only if exact
    const bool minus_zero = s == 0 && R == Rounding::down && (std::signbit(p) || std::signbit(c));
    return minus_zero ? -0.0f : to_float(s, R);
  }
  double operator()(double a, double b, double c) const { return std::fma(a, b, c); }
};
template <Rounding R>
struct Div {
  float operator()(float a, float b) const {
    if (R == Rounding::nearest) return a / b;
    const double q = double{a} / b;
    if (!std::isfinite(q) || std::isinf(b)) return static_cast<float>(q);
    const double error = std::fma(-q, b, double{a});
    return to_float(to_odd(q, std::signbit(b) ? -error : error), R);
  }
  double operator()(double a, double b) const { return a / b; }
};
template <Rounding R>
struct Rcp {
  template <class T>
  T operator()(T a) const {
    return Div<R>{}(T{1}, a);
  }
};
template <Rounding R>
struct Sqrt {
  float operator()(float a) const {
    if (R == Rounding::nearest) return std::sqrt(a);
    const double s = std::sqrt(double{a});
    return to_float(std::isfinite(s) ? to_odd(s, std::fma(-s, s, double{a})) : s, R);
  }
  double operator()(double a) const { return std::sqrt(a); }
};
struct Rsqrt {
  template <class T>
  T operator()(T a) const {
    return static_cast<T>(1 / std::sqrt(double{a}));
  }
};
struct Sin {
  float operator()(float a) const { return std::sin(a); }
};
struct Cos {
  float operator()(float a) const { return std::cos(a); }
};
struct Lg2 {
  float operator()(float a) const { return std::log2(a); }
};
struct Tanh {
  float operator()(float a) const { return std::tanh(a); }
};
// 2^a with a polynomial on [-1/2, 1/2], in double: within half an ulp of fp32, and vectorises.
struct Ex2 {
  float operator()(float a) const {
    const float x = a < -160.0f ? -160.0f : a > 160.0f ? 160.0f : a;
    const float whole = std::nearbyint(x);
    const double f = double{x} - whole;
    constexpr double kC[] = {1.0,
                             0.6931471805599453,
                             0.24022650695910072,
                             0.05550410866482158,
                             0.009618129107628477,
                             0.0013333558146428443,
                             0.00015403530393381608,
                             1.525273380405984e-05,
                             1.3215486790144307e-06};
    double p = kC[8];
    for (int i = 7; i >= 0; --i) p = p * f + kC[i];
    const int64_t shift = static_cast<int64_t>(whole) + 1023;
    const double scale = std::bit_cast<double>(static_cast<uint64_t>(shift) << 52);
    const float y = static_cast<float>(p * scale);
    return a != a ? a : y;
  }
};

struct Neg {
  template <class T>
  T operator()(T a) const {
    return -a;
  }
};
struct Abs {
  template <class T>
  T operator()(T a) const {
    return std::fabs(a);
  }
};
// The number wins over a NaN, except in the .NaN forms; -0 counts as less than +0.
template <bool kMax, bool kNan>
struct MinMax {
  template <class T>
  T operator()(T a, T b) const {
    const bool less = a < b || (a == b && std::signbit(a) && !std::signbit(b));
    const T chosen = kMax == less ? b : a;
    if (kNan) return a != a || b != b ? std::numeric_limits<T>::quiet_NaN() : chosen;
    return a != a ? b : b != b ? a : chosen;
  }
};
template <class F>
struct XorSign {  // of the absolute values, with the signs' xor
  template <class T>
  T operator()(T a, T b) const {
    const T chosen = F{}(std::fabs(a), std::fabs(b));
    return chosen != chosen
               ? chosen
               : std::copysign(chosen, std::signbit(a) != std::signbit(b) ? T{-1} : T{1});
  }
};
struct Copysign {  // the sign of a on b
  template <class T>
  T operator()(T a, T b) const {
    return std::copysign(b, a);
  }
};

template <class F, int kArity, class T, bool kFlush, bool kSat>
Handler around() {
  using G = Around<F, kFlush, kSat>;
  if constexpr (kArity == 1)
    return &unary<T, G>;
  else if constexpr (kArity == 2)
    return &binary<T, G>;
  else
    return &ternary<T, G>;
}
template <class F, int kArity>
Handler pick_float(Encoding& e, Type t) {
  const bool ftz = e.take("ftz"), sat = e.take("sat");
  if (t == Type::f32)
    return ftz ? (sat ? around<F, kArity, float, true, true>()
                      : around<F, kArity, float, true, false>())
               : (sat ? around<F, kArity, float, false, true>()
                      : around<F, kArity, float, false, false>());
  if (t != Type::f64 || ftz || sat) e.fail("not modelled for this type");
  if constexpr (std::is_same_v<F, Ex2> || std::is_same_v<F, Lg2> || std::is_same_v<F, Sin> ||
                std::is_same_v<F, Cos> || std::is_same_v<F, Tanh>)
    e.fail("not modelled for .f64");
  else
    return around<F, kArity, double, false, false>();
}

// fp64 rounds to nearest only.
template <template <Rounding> class F, int kArity>
Handler pick_rounded(Encoding& e, Type t) {
  const int r = e.take_one_of({"rn", "rz", "rm", "rp"}, 0);
  if (r != 0 && t == Type::f64) e.fail("of the rounding modes of .f64 only .rn is modelled");
  switch (r) {
    case 1: return pick_float<F<Rounding::zero>, kArity>(e, t);
    case 2: return pick_float<F<Rounding::down>, kArity>(e, t);
    case 3: return pick_float<F<Rounding::up>, kArity>(e, t);
    default: return pick_float<F<Rounding::nearest>, kArity>(e, t);
  }
}

void operands(Encoding& e, Type t, int sources) {
  e.expect_operands(sources + 1, sources + 1);
  e.out.d = e.destination(0, t);
  e.out.a = e.source(1, t);
  if (sources > 1) e.out.b = e.source(2, t);
  if (sources > 2) e.out.c = e.source(3, t);
}
bool plain(Type t) {
  return t == Type::f32 || t == Type::f64;
}

template <bool kMax>
void min_max(Encoding& e) {
  const Type t = e.take_type();
  if (is_half(t)) return encode_half(e, t);
  if (!plain(t)) return encode_integer_min_max(e, t, kMax);
  operands(e, t, 2);
  const bool nan = e.take("NaN");
  if (e.take("xorsign")) {
    if (!e.take("abs")) e.fail(".abs is missing");
    e.out.run = nan ? pick_float<XorSign<MinMax<kMax, true>>, 2>(e, t)
                    : pick_float<XorSign<MinMax<kMax, false>>, 2>(e, t);
  } else {
    e.out.run =
        nan ? pick_float<MinMax<kMax, true>, 2>(e, t) : pick_float<MinMax<kMax, false>, 2>(e, t);
  }
}

// Approximate functions: exact to an ulp or so here, which is within what the machine promises.
template <class F>
void approximate(Encoding& e) {
  const Type t = e.take_type();
  e.take("approx");
  if (is_half(t)) return encode_half(e, t);
  operands(e, t, 1);
  e.out.run = pick_float<F, 1>(e, t);
}

}  // namespace

void add_float_opcodes(Opcodes& ops) {
  ops["add"] = [](Encoding& e) {
    const Type t = e.take_type();
    if (is_half(t)) return encode_half(e, t);
    if (!plain(t)) return encode_integer_add(e, t, false, false);
    operands(e, t, 2);
    e.out.run = pick_rounded<Add, 2>(e, t);
  };
  ops["sub"] = [](Encoding& e) {
    const Type t = e.take_type();
    if (is_half(t)) return encode_half(e, t);
    if (!plain(t)) return encode_integer_add(e, t, true, false);
    operands(e, t, 2);
    e.out.run = pick_rounded<Sub, 2>(e, t);
  };
  ops["mul"] = [](Encoding& e) {
    const Type t = e.take_type();
    if (is_half(t)) return encode_half(e, t);
    if (!plain(t)) return encode_integer_mul(e, t);
    operands(e, t, 2);
    e.out.run = pick_rounded<Mul, 2>(e, t);
  };
  const auto fma = [](Encoding& e) {
    const Type t = e.take_type();
    if (is_half(t)) return encode_half(e, t);
    if (!plain(t)) return encode_integer_mad(e, t, false);
    operands(e, t, 3);
    e.out.run = pick_rounded<Fma, 3>(e, t);
  };
  ops["fma"] = fma;
  ops["mad"] = fma;
  ops["div"] = [](Encoding& e) {
    const Type t = e.take_type();
    if (!plain(t)) return encode_integer_div(e, t);
    e.take("approx");
    e.take("full");
    operands(e, t, 2);
    e.out.run = pick_rounded<Div, 2>(e, t);
  };
  ops["rcp"] = [](Encoding& e) {
    const Type t = e.take_type();
    e.take("approx");
    operands(e, t, 1);
    e.out.run = pick_rounded<Rcp, 1>(e, t);
  };
  ops["sqrt"] = [](Encoding& e) {
    const Type t = e.take_type();
    e.take("approx");
    operands(e, t, 1);
    e.out.run = pick_rounded<Sqrt, 1>(e, t);
  };
  ops["rsqrt"] = approximate<Rsqrt>;
  ops["sin"] = approximate<Sin>;
  ops["cos"] = approximate<Cos>;
  ops["lg2"] = approximate<Lg2>;
  ops["ex2"] = approximate<Ex2>;
  ops["tanh"] = approximate<Tanh>;
  ops["min"] = min_max<false>;
  ops["max"] = min_max<true>;
  ops["neg"] = [](Encoding& e) {
    const Type t = e.take_type();
    if (is_half(t)) return encode_half(e, t);
    if (!plain(t)) return encode_integer_neg_abs(e, t, true);
    operands(e, t, 1);
    e.out.run = pick_float<Neg, 1>(e, t);
  };
  ops["abs"] = [](Encoding& e) {
    const Type t = e.take_type();
    if (is_half(t)) return encode_half(e, t);
    if (!plain(t)) return encode_integer_neg_abs(e, t, false);
    operands(e, t, 1);
    e.out.run = pick_float<Abs, 1>(e, t);
  };
  ops["copysign"] = [](Encoding& e) {
    const Type t = e.take_type();
    operands(e, t, 2);
    e.out.run = t == Type::f32 ? &binary<float, Copysign> : &binary<double, Copysign>;
  };
}

}  // namespace ptx
