"""Element types that can be named on the command line, those that numpy lacks among them."""

import functools

import numpy as np

_NUMPY = {
    **{f"i{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"u{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"f{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
}
# Kept as bits.
_BFLOAT16, _FLOAT8 = np.dtype(np.uint16), np.dtype(np.uint8)
_FRACTION_BITS = {"e4m3": 3, "e5m2": 2}
NAMES = (*_NUMPY, "bf16", *_FRACTION_BITS)


def is_float(name: str) -> bool:
    return name[0] in "fbe"


def storage(name: str) -> np.dtype:
    """The dtype that holds elements of the type."""
    return _NUMPY.get(name, _BFLOAT16 if name == "bf16" else _FLOAT8)


def encode(values: np.ndarray, name: str) -> np.ndarray:
    """Elements of the type, rounded to nearest even; fp8 saturates to its largest number."""
    if name in _NUMPY:
        return values.astype(_NUMPY[name])
    nan = np.isnan(values)
    if name == "bf16":
        with np.errstate(over="ignore"):
            bits = np.where(nan, 0, values).astype(np.float32).view(np.uint32)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        return np.where(nan, 0x7FFF, rounded).astype(_BFLOAT16)
    table = _float8_magnitudes(name)
    magnitudes = np.where(nan, 0, np.abs(values)).clip(max=table[-1]).astype(np.float64)
    above = np.searchsorted(table, magnitudes).clip(min=1)
    to_low, to_high = magnitudes - table[above - 1], table[above] - magnitudes
    up = (to_high < to_low) | ((to_high == to_low) & (above % 2 == 0))
    codes = np.where(nan, 0x7F, np.where(up, above, above - 1))
    return (codes | np.where(np.signbit(values), 0x80, 0)).astype(_FLOAT8)


def decode(elements: np.ndarray, name: str) -> np.ndarray:
    """The values that elements of the type stand for."""
    if name in _NUMPY:
        return elements
    if name == "bf16":
        return (elements.astype(np.uint32) << 16).view(np.float32)
    finite = _float8_magnitudes(name)
    table = np.full(128, np.nan, np.float32)
    table[: len(finite)] = finite
    if name == "e5m2":
        table[len(finite)] = np.inf
    return np.where(elements >= 128, -table[elements & 127], table[elements & 127])


@functools.cache
def _float8_magnitudes(name: str) -> np.ndarray:
    """What the codes from 0 to the largest finite number stand for."""
    fraction_bits = _FRACTION_BITS[name]
    codes = np.arange({"e4m3": 0x7E, "e5m2": 0x7B}[name] + 1)
    exponent, fraction = codes >> fraction_bits, codes % (1 << fraction_bits)
    bias = 63 >> fraction_bits
    significand = fraction / (1 << fraction_bits) + (exponent > 0)
    return np.ldexp(significand, np.maximum(exponent, 1) - bias)
