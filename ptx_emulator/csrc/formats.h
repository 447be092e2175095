// Floating-point formats and rounding, without use of the host's rounding mode.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace ptx {

enum class Rounding : uint8_t { nearest, zero, down, up };

constexpr uint32_t kNan32 = 0x7fffffff;  // what the machine's fp32 arithmetic returns
inline float canonical(float x) {
  return x != x ? std::bit_cast<float>(kNan32) : x;
}
inline double canonical(double x) {
  return x;
}
inline float flush(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((bits & 0x7f800000) ? bits : bits & 0x80000000);
}

// Rounded so that a second rounding, to at most 51 bits, is as if it were the only one: an inexact
// result is cut off and its last bit set. `error` is exact minus x.
inline double to_odd(double x, double error) {
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  const bool beyond = (error > 0) != (x > 0);
  const double cut = std::bit_cast<double>((bits - beyond) | 1);
  const double tiny = std::copysign(std::numeric_limits<double>::denorm_min(), error);
  const bool finite = (bits & 0x7ff0000000000000) != 0x7ff0000000000000;
  return error == 0 || !finite ? x : x == 0 ? tiny : cut;
}
inline double add_to_odd(double a, double b) {
  const double s = a + b, t = s - a;
  return to_odd(s, (a - (s - t)) + (b - t));
}

// The same, for a second rounding to at most 22 bits.
inline float narrow_to_odd(double x) {
  const float f = static_cast<float>(x);
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const bool beyond = std::fabs(double{f}) > std::fabs(x);
  const float cut = std::bit_cast<float>((bits - beyond) | 1);
  return double{f} == x || x != x ? f : cut;
}

inline float to_float(double x, Rounding r) {
  const float f = static_cast<float>(x);
  constexpr float kInf = std::numeric_limits<float>::infinity();
  if (r == Rounding::nearest || f != f || x == f) return f;
  if (r == Rounding::zero) return std::fabs(f) > std::fabs(x) ? std::nextafterf(f, 0.0f) : f;
  if (r == Rounding::down) return f > x ? std::nextafterf(f, -kInf) : f;
  return f < x ? std::nextafterf(f, kInf) : f;
}

// Formats of at most 16 bits.
struct Format {
  int exponent, mantissa;  // bits
  bool has_infinity;       // e4m3 has none: its top exponent holds numbers, but for the last code
  uint32_t nan;            // canonical
};
constexpr Format kF16{5, 10, true, 0x7fff}, kBF16{8, 7, true, 0x7fff}, kE4M3{4, 3, false, 0x7f},
    kE5M2{5, 2, true, 0x7f};

// Encodes x; overflow gives infinity (NaN where there is none) or, if it saturates, the largest
// number. Saturation leaves NaN alone.
[[gnu::always_inline]] inline uint32_t encode(double x, const Format& f, Rounding r,
                                              bool saturate) {
  const uint64_t bits = std::bit_cast<uint64_t>(x), abs = bits & ~(uint64_t{1} << 63);
  const bool negative = bits >> 63;
  const int bias = (1 << (f.exponent - 1)) - 1;
  const uint32_t infinity = ((1u << f.exponent) - 1) << f.mantissa;
  const uint32_t largest = f.has_infinity ? infinity - 1 : infinity + (1u << f.mantissa) - 2;
  const uint32_t overflow = saturate ? largest : f.has_infinity ? infinity : f.nan;
  // The significand in units of the code's last place, and what lies below. A subnormal double is
  // far below any code.
  const int own = static_cast<int>(abs >> 52) - 1023;
  const int exponent = own > 1 - bias ? own : 1 - bias;
  const int excess = 52 - f.mantissa + exponent - own, shift = excess < 63 ? excess : 63;
  const uint64_t significand =
      (abs & 0xfffffffffffff) | (abs >= 0x10000000000000 ? 0x10000000000000 : 0);
  const uint64_t whole = significand >> shift, rest = significand - (whole << shift);
  const uint64_t half = uint64_t{1} << (shift - 1);
  const bool away = r == Rounding::nearest ? rest > half || (rest == half && (whole & 1))
                    : r == Rounding::zero  ? false
                    : r == Rounding::down  ? negative && rest != 0
                                           : !negative && rest != 0;
  // Normal numbers carry an implicit one, which the exponent field of the code absorbs.
  uint32_t code = (static_cast<uint32_t>(exponent + bias - 1) << f.mantissa) +
                  static_cast<uint32_t>(whole) + away;
  // Rounding towards zero never reaches beyond the largest number.
  const bool stays =
      r == Rounding::zero || (r == Rounding::down && !negative) || (r == Rounding::up && negative);
  const bool infinite = abs == 0x7ff0000000000000;
  code = infinite ? overflow : code <= largest ? code : stays ? largest : overflow;
  code |= negative ? 1u << (f.exponent + f.mantissa) : 0;
  return x != x ? f.nan : code;
}
double decode(uint32_t code, const Format& f);

// Round to nearest even, quick enough for inner loops.
inline uint16_t bf16_of(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fff : rounded);
}
inline float float_of_bf16(uint16_t code) {
  return std::bit_cast<float>(uint32_t{code} << 16);
}

inline uint16_t f16_of(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), sign = bits >> 16 & 0x8000;
  const uint32_t abs = bits & 0x7fffffff;
  const uint32_t normal = (abs - 0x38000000 + 0xfff + (abs >> 13 & 1)) >> 13;
  // Adding 0.5 leaves a subnormal result in the last bits of the sum, rounded by the addition.
  const float shifted = std::bit_cast<float>(abs) + 0.5f;
  const uint32_t subnormal = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0.5f);
  uint32_t code = abs < 0x38800000 ? subnormal : normal;
  code = abs >= 0x477ff000 ? 0x7c00 : code;
  return static_cast<uint16_t>(abs > 0x7f800000 ? 0x7fff : sign | code);
}
inline float float_of_f16(uint16_t code) {
  const uint32_t sign = uint32_t{code & 0x8000u} << 16, rest = code & 0x7fffu;
  const uint32_t normal = (rest << 13) + 0x38000000;
  const float subnormal = static_cast<float>(rest) * 0x1p-24f;
  uint32_t bits = rest < 0x400 ? std::bit_cast<uint32_t>(subnormal) : normal;
  bits = rest >= 0x7c00 ? (rest << 13) + 0x70000000 : bits;
  return std::bit_cast<float>(sign | bits);
}

}  // namespace ptx
