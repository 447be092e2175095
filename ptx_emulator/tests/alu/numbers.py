"""Binary floating-point formats by their definition: exact values, one rounding at the end."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import isqrt


@dataclass(frozen=True)
class Format:
    name: str
    exponent_bits: int
    fraction_bits: int
    has_infinity: bool = True

    @property
    def width(self):
        return 1 + self.exponent_bits + self.fraction_bits

    @property
    def lowest_exponent(self):  # of a normal number
        return 2 - 2 ** (self.exponent_bits - 1)

    @property
    def sign(self):
        return 1 << (self.width - 1)

    @property
    def infinity(self):
        return ((1 << self.exponent_bits) - 1) << self.fraction_bits

    @property
    def largest(self):
        """Code of the largest finite number."""
        return self.infinity - 1 if self.has_infinity else self.sign - 2

    @property
    def nan(self):
        """The canonical one: every bit but the sign."""
        return self.sign - 1

    @property
    def one(self):
        return self.infinity // 2 & ~((1 << self.fraction_bits) - 1)


F64 = Format("f64", 11, 52)
F32 = Format("f32", 8, 23)
F16 = Format("f16", 5, 10)
BF16 = Format("bf16", 8, 7)
E4M3 = Format("e4m3", 4, 3, has_infinity=False)
E5M2 = Format("e5m2", 5, 2)
FORMATS = {f.name: f for f in (F64, F32, F16, BF16, E4M3, E5M2)}


@dataclass(frozen=True)
class Number:
    """NaN, an infinity, or an exact number, whose zero has a sign."""

    kind: str
    negative: bool = False
    magnitude: Fraction = Fraction(0)

    @property
    def value(self):
        return -self.magnitude if self.negative else self.magnitude


NAN = Number("nan")


def infinity(negative):
    return Number("infinite", negative)


def finite(value, negative_zero=False):
    value = Fraction(value)
    return Number("finite", value < 0 or (value == 0 and negative_zero), abs(value))


@cache
def decode(code, fmt):
    negative = bool(code & fmt.sign)
    rest = code & (fmt.sign - 1)
    if fmt.has_infinity and rest == fmt.infinity:
        return infinity(negative)
    if rest > fmt.largest:
        return NAN
    field, fraction = divmod(rest, 1 << fmt.fraction_bits)
    exponent = fmt.lowest_exponent + max(field, 1) - 1 - fmt.fraction_bits
    units = fraction + (1 << fmt.fraction_bits if field else 0)
    return Number("finite", negative, Fraction(units) * Fraction(2) ** exponent)


def is_subnormal(code, fmt):
    rest = code & (fmt.sign - 1)
    return 0 < rest < 1 << fmt.fraction_bits


def is_nan(code, fmt):
    return decode(code, fmt).kind == "nan"


def flush(code, fmt):
    return code & fmt.sign if is_subnormal(code, fmt) else code


def floor_log2(q):
    e = q.numerator.bit_length() - q.denominator.bit_length()
    return e if q >= Fraction(2) ** e else e - 1


def round_units(q, mode, negative):
    """q >= 0 to an integer; mode: rn, rna, rz, rm or rp."""
    whole, rest = divmod(q.numerator, q.denominator)
    if rest == 0:
        return whole
    twice = 2 * rest - q.denominator
    up = {
        "rn": twice > 0 or (twice == 0 and whole % 2 == 1),
        "rna": twice >= 0,
        "rz": False,
        "rm": negative,
        "rp": not negative,
    }[mode]
    return whole + up


def encode(x, fmt, mode="rn", satfinite=False):
    sign = fmt.sign if x.negative else 0
    overflow = fmt.largest if satfinite else fmt.infinity if fmt.has_infinity else fmt.nan
    if x.kind == "nan":
        return fmt.nan
    if x.kind == "infinite":
        return sign | overflow
    if x.magnitude == 0:
        return sign
    exponent = max(floor_log2(x.magnitude), fmt.lowest_exponent)
    units = round_units(
        x.magnitude / Fraction(2) ** (exponent - fmt.fraction_bits), mode, x.negative
    )
    code = ((exponent - fmt.lowest_exponent) << fmt.fraction_bits) + units
    if code <= fmt.largest:
        return sign | code
    towards_zero = mode == "rz" or (mode == "rm" and not x.negative)
    towards_zero = towards_zero or (mode == "rp" and x.negative)
    return sign | (fmt.largest if towards_zero else overflow)


# Exact arithmetic. `mode` matters for the sign of a zero sum only.


def add(x, y, mode="rn"):
    if "nan" in (x.kind, y.kind):
        return NAN
    if x.kind == "infinite" or y.kind == "infinite":
        if x.kind == y.kind:
            return x if x.negative == y.negative else NAN
        return x if x.kind == "infinite" else y
    total = x.value + y.value
    if total != 0:
        return finite(total)
    same = x.negative == y.negative
    return finite(0, x.negative if same else mode == "rm")


def negate(x):
    return Number(x.kind, not x.negative, x.magnitude)


def sub(x, y, mode="rn"):
    return add(x, negate(y), mode)


def mul(x, y, mode="rn"):
    if "nan" in (x.kind, y.kind):
        return NAN
    negative = x.negative != y.negative
    if "infinite" in (x.kind, y.kind):
        zero = any(z.kind == "finite" and z.magnitude == 0 for z in (x, y))
        return NAN if zero else infinity(negative)
    return Number("finite", negative, x.magnitude * y.magnitude)


def fma(x, y, z, mode="rn"):
    return add(mul(x, y), z, mode)


def div(x, y, mode="rn"):
    if "nan" in (x.kind, y.kind):
        return NAN
    negative = x.negative != y.negative
    if x.kind == "infinite":
        return NAN if y.kind == "infinite" else infinity(negative)
    if y.kind == "infinite":
        return finite(0, negative)
    if y.magnitude == 0:
        return NAN if x.magnitude == 0 else infinity(negative)
    return Number("finite", negative, x.magnitude / y.magnitude)


def sqrt(x, mode="rn"):
    """Exact, or close enough to it on the right side for any rounding here."""
    if x.kind == "nan" or (x.negative and (x.kind == "infinite" or x.magnitude)):
        return NAN
    if x.kind == "infinite" or x.magnitude == 0:
        return x
    n, d = x.magnitude.numerator, x.magnitude.denominator
    shift = max(0, 160 - (n * d).bit_length()) // 2 + 64
    root = isqrt(n * d << 2 * shift)
    exact = root * root == n * d << 2 * shift
    return finite(Fraction(2 * root + (not exact), d << (shift + 1)))


def round_to_integer(x, mode):
    """In a float format: the sign of a zero stays."""
    if x.kind != "finite":
        return x
    return Number("finite", x.negative, Fraction(round_units(x.magnitude, mode, x.negative)))
