// fp32 and fp64 arithmetic. Integer and 16-bit forms of the same opcodes are handed on.
#include <cfenv>
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
// By way of a reciprocal, which vanishes for large divisors.
struct DivApprox {
  float operator()(float a, float b) const {
    const bool large = std::fabs(b) > 0x1p126f && std::fabs(b) < INFINITY;
    return large ? a * std::copysign(0.0f, b) : a / b;
  }
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
template <class F, class... Others>
constexpr bool kOneOf = (std::is_same_v<F, Others> || ...);
template <class F>
constexpr bool kOnlyF32 = kOneOf<F, DivApprox, Ex2, Lg2, Sin, Cos, Tanh>;

template <class F, int kArity>
Handler pick_float(Encoding& e, Type t, bool may_saturate = false) {
  const bool ftz = e.take("ftz"), sat = may_saturate && e.take("sat");
  if (t == Type::f32)
    return ftz ? (sat ? around<F, kArity, float, true, true>()
                      : around<F, kArity, float, true, false>())
               : (sat ? around<F, kArity, float, false, true>()
                      : around<F, kArity, float, false, false>());
  if (t != Type::f64 || ftz || sat) e.fail("not modelled for this type");
  if constexpr (kOnlyF32<F>)
    e.fail("not modelled for .f64");
  else
    return around<F, kArity, double, false, false>();
}

// fp64 in the other rounding modes is the host's arithmetic in that mode. What runs in it is kept
// together by not being inlined.
class HostRounding {
 public:
  explicit HostRounding(Rounding r) : saved_(std::fegetround()) {
    std::fesetround(r == Rounding::zero   ? FE_TOWARDZERO
                    : r == Rounding::down ? FE_DOWNWARD
                    : r == Rounding::up   ? FE_UPWARD
                                          : FE_TONEAREST);
  }
  ~HostRounding() { std::fesetround(saved_); }

 private:
  int saved_;
};
template <class F, int kArity>
[[gnu::noipa]] void compute(const double* a, const double* b, const double* c, double* out) {
  for (int l = 0; l < kLanes; ++l) {
    if constexpr (kArity == 1)
      out[l] = F{}(a[l]);
    else if constexpr (kArity == 2)
      out[l] = F{}(a[l], b[l]);
    else
      out[l] = F{}(a[l], b[l], c[l]);
  }
}
// small: a Rounding
template <class F, int kArity>
Flow in_host_rounding(Warp& w, const Instr& in, Mask mask) {
  const double* a = w.in<double>(in.a);
  const double* b = kArity > 1 ? w.in<double>(in.b) : a;
  const double* c = kArity > 2 ? w.in<double>(in.c) : a;
  double out[kLanes];
  {
    const HostRounding rounding(static_cast<Rounding>(in.small));
    compute<F, kArity>(a, b, c, out);
  }
  blend(w.out<double>(in.d), out, mask);
  return Flow::next;
}

template <template <Rounding> class F, int kArity>
Handler pick_rounded(Encoding& e, Type t, bool optional, bool may_saturate) {
  const int r = e.take_one_of({"rn", "rz", "rm", "rp"});
  if (r < 0 && !optional) e.fail("a rounding is missing");
  if (t == Type::f64 && r > 0) {
    e.out.small = static_cast<uint8_t>(r);
    return &in_host_rounding<F<Rounding::nearest>, kArity>;
  }
  switch (r) {
    case 1: return pick_float<F<Rounding::zero>, kArity>(e, t, may_saturate);
    case 2: return pick_float<F<Rounding::down>, kArity>(e, t, may_saturate);
    case 3: return pick_float<F<Rounding::up>, kArity>(e, t, may_saturate);
    default: return pick_float<F<Rounding::nearest>, kArity>(e, t, may_saturate);
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
  if (t == Type::f64) {
    e.out.run = &binary<double, MinMax<kMax, false>>;
    return;
  }
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
  if (!e.take("approx")) e.fail(".approx is missing");
  if (is_half(t)) return encode_half(e, t);
  operands(e, t, 1);
  if (std::is_same_v<F, Tanh> && e.take("ftz")) e.fail("tanh has no .ftz");
  e.out.run = pick_float<F, 1>(e, t);
}

enum class Class { finite, infinite, number, nan, normal, subnormal };
template <class T, Class kClass>
Flow test(Warp& w, const Instr& in, Mask mask) {
  const T* a = w.in<T>(in.a);
  const Mask hit = lanes_where([=](int l) {
    constexpr T kInfinity = std::numeric_limits<T>::infinity();
    const T x = std::fabs(a[l]);
    const bool small = x > 0 && x < std::numeric_limits<T>::min();
    switch (kClass) {
      case Class::finite: return x < kInfinity;
      case Class::infinite: return x == kInfinity;
      case Class::number: return x == x;
      case Class::nan: return x != x;
      case Class::normal: return x < kInfinity && !small;
      default: return small;
    }
  });
  write_pred(w.pred(in.d), mask, hit);
  return Flow::next;
}
template <class T>
Handler pick_test(int which) {
  switch (which) {
    case 0: return &test<T, Class::finite>;
    case 1: return &test<T, Class::infinite>;
    case 2: return &test<T, Class::number>;
    case 3: return &test<T, Class::nan>;
    case 4: return &test<T, Class::normal>;
    default: return &test<T, Class::subnormal>;
  }
}
void testp(Encoding& e) {
  const int which =
      e.take_one_of({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
  if (which < 0) e.fail("a property is missing");
  const Type t = e.take_type();
  if (!plain(t)) e.fail(".f32 or .f64 is expected");
  e.expect_operands(2, 2);
  bool negated = false;
  e.out.d = e.predicate(0, negated);
  e.out.a = e.source(1, t);
  e.out.run = t == Type::f32 ? pick_test<float>(which) : pick_test<double>(which);
}

}  // namespace

void add_float_opcodes(Opcodes& ops) {
  ops["add"] = [](Encoding& e) {
    const Type t = e.take_type();
    if (is_half(t)) return encode_half(e, t);
    if (!plain(t)) return encode_integer_add(e, t, false, false);
    operands(e, t, 2);
    e.out.run = pick_rounded<Add, 2>(e, t, true, true);
  };
  ops["sub"] = [](Encoding& e) {
    const Type t = e.take_type();
    if (is_half(t)) return encode_half(e, t);
    if (!plain(t)) return encode_integer_add(e, t, true, false);
    operands(e, t, 2);
    e.out.run = pick_rounded<Sub, 2>(e, t, true, true);
  };
  ops["mul"] = [](Encoding& e) {
    const Type t = e.take_type();
    if (is_half(t)) return encode_half(e, t);
    if (!plain(t)) return encode_integer_mul(e, t);
    operands(e, t, 2);
    e.out.run = pick_rounded<Mul, 2>(e, t, true, true);
  };
  const auto fma = [](Encoding& e) {
    const Type t = e.take_type();
    if (is_half(t)) return encode_half(e, t);
    if (!plain(t) && e.opcode() == "mad") return encode_integer_mad(e, t, false);
    operands(e, t, 3);
    e.out.run = pick_rounded<Fma, 3>(e, t, false, true);
  };
  ops["fma"] = fma;
  ops["mad"] = fma;
  ops["div"] = [](Encoding& e) {
    const Type t = e.take_type();
    if (!plain(t)) return encode_integer_div(e, t);
    operands(e, t, 2);
    const int approximate = e.take_one_of({"approx", "full"});
    if (approximate >= 0 && t != Type::f32) e.fail(".approx and .full are for .f32");
    e.out.run = approximate == 0   ? pick_float<DivApprox, 2>(e, t)
                : approximate == 1 ? pick_float<Div<Rounding::nearest>, 2>(e, t)
                                   : pick_rounded<Div, 2>(e, t, false, false);
  };
  ops["rcp"] = [](Encoding& e) {
    const Type t = e.take_type();
    operands(e, t, 1);
    const bool approximate = e.take("approx");
    if (approximate && t != Type::f32) e.fail("rcp.approx is modelled for .f32");
    e.out.run = approximate ? pick_float<Rcp<Rounding::nearest>, 1>(e, t)
                            : pick_rounded<Rcp, 1>(e, t, false, false);
  };
  ops["sqrt"] = [](Encoding& e) {
    const Type t = e.take_type();
    operands(e, t, 1);
    const bool approximate = e.take("approx");
    if (approximate && t != Type::f32) e.fail("sqrt.approx is for .f32");
    e.out.run = approximate ? pick_float<Sqrt<Rounding::nearest>, 1>(e, t)
                            : pick_rounded<Sqrt, 1>(e, t, false, false);
  };
  ops["rsqrt"] = approximate<Rsqrt>;
  ops["sin"] = approximate<Sin>;
  ops["cos"] = approximate<Cos>;
  ops["lg2"] = approximate<Lg2>;
  ops["ex2"] = approximate<Ex2>;
  ops["tanh"] = approximate<Tanh>;
  ops["testp"] = testp;
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
    if (!plain(t)) e.fail(".f32 or .f64 is expected");
    operands(e, t, 2);
    e.out.run = t == Type::f32 ? &binary<float, Copysign> : &binary<double, Copysign>;
  };
}

}  // namespace ptx
