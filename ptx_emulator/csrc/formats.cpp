#include "formats.h"

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

}  // namespace ptx
