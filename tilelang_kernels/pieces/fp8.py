"""float8_e4m3fn codes as a target's kernels see them.

Where the hardware has e4m3fn, its conversions are used. Elsewhere codes are bytes and are converted
by integer arithmetic: on sm_80, which has no fp8, and on gfx942, whose fp8 is e4m3fnuz.
"""

import tilelang.language as T
import torch

from dsa_kernels.formats import FP8_MAX
from tilelang_kernels.toolchain.targets import Target

E4M3FN, FNUZ = "float8_e4m3fn", "float8_e4m3fnuz"
NAN = 0x7F
# Between float32's exponent bias and e4m3fn's, and the mantissa bits that only float32 has.
BIAS, SHIFT = 127 - 7, 23 - 3
SMALLEST_NORMAL = 2.0**-6
ULP_IS_SUBNORMAL = 2.0**14  # whose last place in float32 is e4m3fn's smallest subnormal, 2^-9


def code_type(target: Target) -> str:
    """Of arrays of codes."""
    return E4M3FN if target.fp8 == E4M3FN else "uint8"


def torch_code_type(target: Target) -> torch.dtype:
    return getattr(torch, code_type(target))


def in_pairs(target: Target) -> bool:
    """Codes that are bytes are loaded two at a time, as bfloat16: TileLang has no vector of 16 zero
    bytes on AMD, and loads bytes that it converts one at a time."""
    return code_type(target) == "uint8"


def in_pair(pair, which):
    """A byte of two that have been loaded as a bfloat16."""
    word = T.cast(T.reinterpret(pair, "uint16"), "uint32")
    return T.cast(word >> which * 8 & 0xFF, "uint8")


def code_value(target: Target, code):
    """The float32 that a code stands for, exactly."""
    if code_type(target) == E4M3FN:
        return T.cast(code, "float32")
    bits = T.cast(code, "uint32")
    magnitude, sign = bits & 0x7F, bits & 0x80
    # The code before 0x80; a branch would not be vectorised.
    nan = (magnitude + 1 >> 7) * T.uint32(0x7FC00000)
    # The exponent's bits are in place, its bias is not; this is exact of subnormals, too.
    return T.reinterpret(magnitude << SHIFT | sign << 24 | nan, "float32") * T.float32(2.0**BIAS)


def code_of(target: Target, x):
    """The code nearest to float32 `x`, ties to even, saturating; every NaN is 0x7f."""
    if code_type(target) == E4M3FN:
        if target.kind == "hip":  # keeps the sign of a NaN
            x = T.if_then_else(T.isnan(x), T.float32(float("nan")), x)
        return T.cast(x, E4M3FN)
    magnitude = T.min(T.abs(x), T.float32(FP8_MAX))
    bits = T.reinterpret(magnitude, "uint32")
    normal = (bits + 0x7FFFF + (bits >> SHIFT & 1) >> SHIFT) - (BIAS << 3)
    shifted = T.reinterpret(magnitude + T.float32(ULP_IS_SUBNORMAL), "uint32")
    subnormal = shifted - T.reinterpret(T.float32(ULP_IS_SUBNORMAL), "uint32")
    code = T.if_then_else(magnitude < T.float32(SMALLEST_NORMAL), subnormal, normal)
    code = code | T.reinterpret(x, "uint32") >> 24 & 0x80
    return T.cast(T.if_then_else(T.isnan(x), T.uint32(NAN), code), "uint8")


def fnuz_code(code):
    """The e4m3fnuz code, as a byte, of half the value of e4m3fn `code`, a byte.

    It is the same one but for -0, which fnuz does not have, and NaN, for which it takes the code of
    -0.
    """
    nan = (code & 0x7F) == NAN
    code = T.if_then_else(code == 0x80, T.uint8(0), code)
    return T.if_then_else(nan, T.uint8(0x80), code)


def fnuz_operand(code):
    """`code`, a byte, as an operand of gfx942's products: half its value, as float8_e4m3fnuz."""
    return T.reinterpret(fnuz_code(code), FNUZ)
