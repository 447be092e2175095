#include "formats.h"

#include <algorithm>

namespace ptx {

double decode(uint32_t code, const Format& f) {
  const int bias = (1 << (f.exponent - 1)) - 1;
  const uint32_t top = (1u << f.exponent) - 1;
  const uint32_t fraction = code & ((1u << f.mantissa) - 1);
  const uint32_t exponent = code >> f.mantissa & top;
  const bool negative = code >> (f.exponent + f.mantissa) & 1;
  double x;
  if (f.has_infinity && exponent == top) {
    x = fraction ? std::nan("") : std::numeric_limits<double>::infinity();
  } else if (!f.has_infinity && exponent == top && fraction == (1u << f.mantissa) - 1) {
    x = std::nan("");
  } else if (exponent == 0) {
    x = std::ldexp(fraction, 1 - bias - f.mantissa);
  } else {
    x = std::ldexp(fraction + (1u << f.mantissa), static_cast<int>(exponent) - bias - f.mantissa);
  }
  return negative ? -x : x;
}

uint32_t encode(double x, const Format& f, Rounding r, bool saturate) {
  if (x != x) return f.nan;
  const int bias = (1 << (f.exponent - 1)) - 1;
  const uint32_t top = (1u << f.exponent) - 1;
  const uint32_t sign = std::signbit(x) ? 1u << (f.exponent + f.mantissa) : 0;
  const uint32_t infinity = top << f.mantissa;
  const uint32_t largest = f.has_infinity ? infinity - 1 : infinity + (1u << f.mantissa) - 2;
  const uint32_t overflow = saturate ? largest : f.has_infinity ? infinity : f.nan;
  const double abs = std::fabs(x);
  if (std::isinf(x)) return sign | overflow;
  if (abs == 0) return sign;
  const int exponent = std::max(std::ilogb(abs), 1 - bias);
  const double scaled = std::ldexp(abs, f.mantissa - exponent);  // exact
  double whole = std::floor(scaled);
  const double rest = scaled - whole;
  const bool away = r == Rounding::nearest ? rest > 0.5 || (rest == 0.5 && std::fmod(whole, 2) == 1)
                    : r == Rounding::zero  ? false
                    : r == Rounding::down  ? sign && rest > 0
                                           : !sign && rest > 0;
  whole += away;
  // Normal numbers carry an implicit one, which the exponent field of the code absorbs.
  const double code = std::ldexp(exponent + bias - 1, f.mantissa) + whole;
  if (code <= largest) return sign | static_cast<uint32_t>(code);
  // Rounding towards zero never reaches beyond the largest number.
  const bool stays =
      r == Rounding::zero || (r == Rounding::down && !sign) || (r == Rounding::up && sign);
  return sign | (stays ? largest : overflow);
}

}  // namespace ptx
