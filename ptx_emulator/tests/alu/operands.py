"""Values for operands: the edges of a type, all pairs of them, and random ones."""

import itertools
import random
from fractions import Fraction
from functools import cache

from .forms import WIDTHS, wrap
from .numbers import E4M3, F16, F32, F64, FORMATS, encode, finite

LANES = 1024  # of a test: the threads of its kernel


@cache
def integer_edges(bits):
    values = [0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 127, 128, 255, 256, 32767, 32768, 65535, 65536]
    values += [0x7FFFFF, 0x800000, 0xFFFFFF, 0x1000000, 0x55555555, 0xAAAAAAAA, 0x01234567]
    values += [2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**63 + 1]
    # Integers that don't fit a float's fraction: ties, and just beside them.
    values += [2**24 + 1, 2**24 + 3, 2**53 + 1, 2**53 + 3, 2**60 + 2**36, 2**60 + 2**36 + 1]
    values += [2049, 2051, 257, 259, 65519, 65520, 2**32 - 128, 2**32 - 129, 2**64 - 1024]
    values += [-v for v in values]
    return sorted({wrap(v, bits) for v in values})


@cache
def float_edges(fmt):
    p = fmt.fraction_bits
    codes = [0, 1, 2, (1 << p) - 1, 1 << p, (1 << p) + 1, fmt.one - 1, fmt.one, fmt.one + 1]
    codes += [fmt.largest - 1, fmt.largest, fmt.infinity, fmt.nan, fmt.infinity + 1]
    codes += [fmt.infinity | 1 << (p - 1), fmt.infinity | 5]
    halves = ("0.25", "0.5", "0.75", "1.5", "2", "2.5", "3.5", "3", "10", "127.5", "255.5", "300")
    reals = [Fraction(x) for x in halves]
    reals += [Fraction(x) for x in ("126.5", "128", "128.5", "254.5", "256", "32767.5", "65535.5")]
    for n in (15, 16, 31, 32, 63, 64, 126, 127, -126, -149, -150):
        reals += [Fraction(2) ** n, Fraction(2) ** n * (1 - Fraction(1, 2**24))]
    # Ties of the roundings to narrower formats, and their neighbours.
    for q in (2, 3, 7, 10):
        tie = Fraction(1, 2 ** (q + 1))
        for x in (1 + tie, 1 + 3 * tie, 2 - tie):
            reals += [x, x + Fraction(1, 2**22), x - Fraction(1, 2**22)]
    for narrow in (F16, E4M3, FORMATS["e5m2"], FORMATS["bf16"]):
        top = Fraction(2) ** (1 - narrow.lowest_exponent + (not narrow.has_infinity))
        step = top / 2 ** (narrow.fraction_bits + 1)
        reals += [top - step, top - step / 2, top - step * Fraction(3, 4), top - step / 4, top]
        least = Fraction(2) ** (narrow.lowest_exponent - narrow.fraction_bits)
        reals += [least, least / 2, least * Fraction(3, 2), least * Fraction(5, 8), least / 4]
    codes += [encode(finite(x), fmt, "rz") for x in reals]
    return sorted({c for c in codes} | {c | fmt.sign for c in codes})


@cache
def edges(kind):
    """Codes of the interesting values of a type, or of a hint."""
    if kind == "pred":
        return [0, 1]
    if kind == "amount":  # shifts, positions, lengths: within the width and past it
        return [*range(0, 70), 127, 128, 254, 255, 256, 257, 511, 2**31, 2**32 - 1, 2**32 - 32]
    if kind == "any":
        return sorted({*integer_edges(32), *(wrap(v, 32) for v in (-9, -8, -3, -2, 4, 8, 15, 16))})
    if kind in FORMATS:
        return float_edges(FORMATS[kind])
    if kind.endswith("x2") and kind[:-2] in FORMATS:
        return float_edges(FORMATS[kind[:-2]])
    if kind in ("u16x2", "s16x2"):
        return integer_edges(16)
    if kind in ("b32", "b64"):  # untyped: floats as well
        fmt = F32 if kind == "b32" else F64
        return sorted({*integer_edges(WIDTHS[kind]), *float_edges(fmt)[::4]})
    return integer_edges(WIDTHS[kind])


def draw(kind, rng):
    """One code for a register of the kind, with anything above the hint's width."""
    register, _, hint = kind.partition(":")
    hint = hint or register
    bits = WIDTHS[register]
    if hint.endswith("x2"):
        half = bits // 2
        return draw_plain(hint, rng, half) | draw_plain(hint, rng, half) << half
    narrow = WIDTHS.get(hint, bits)
    code = draw_plain(hint, rng, narrow)
    return code | wrap(rng.getrandbits(64) << narrow, bits) if narrow < bits else wrap(code, bits)


def draw_plain(kind, rng, bits):
    if kind == "amount":
        return rng.choice(edges(kind))
    if rng.random() < 0.55 or kind == "pred":
        return rng.choice(edges(kind))
    code = rng.getrandbits(bits)
    if kind in FORMATS and rng.random() < 0.7:  # moderate exponents, so that results are finite
        fmt = FORMATS[kind]
        bias = fmt.one >> fmt.fraction_bits
        field = bias + rng.randint(-min(bias - 1, 24), min(bias - 1, 24))
        code = code & ~fmt.infinity | field << fmt.fraction_bits
    return code


def lanes(kinds, seed):
    """A list of operand tuples, LANES long: all edges, pairs of edges, then random ones."""
    rng = random.Random(seed)
    rows = [tuple(draw(k, rng) for k in kinds) for _ in range(LANES)]
    if not kinds:
        return rows
    plain = [edges(k.partition(":")[2] or k) for k in kinds]
    whole = [k for k in kinds if not k.partition(":")[2] and not k.endswith("x2")]
    if len(whole) == len(kinds):
        count = 1
        for e in plain:
            count *= len(e)
        pairs = (
            list(itertools.product(*plain))
            if count <= 60000
            else [tuple(rng.choice(e) for e in plain) for _ in range(LANES)]
        )
        chosen = pairs if len(pairs) <= LANES // 2 else rng.sample(pairs, LANES // 2)
        rows[: len(chosen)] = chosen
    return near_cancellation(kinds, rows, rng)


def near_cancellation(kinds, rows, rng):
    """In a quarter of the rows: the last operand near what makes a sum vanish."""
    fmt = FORMATS.get(kinds[0])
    if fmt is None or len(set(kinds)) != 1 or len(kinds) < 2:
        return rows
    from .numbers import decode, mul

    for i in range(3 * len(rows) // 4, len(rows)):
        *front, _ = rows[i]
        x = decode(front[0], fmt)
        if len(front) == 2:
            x = mul(x, decode(front[1], fmt))
        code = encode(x, fmt, rng.choice(("rz", "rn"))) ^ fmt.sign
        step = rng.choice((0, 0, 0, 1, -1, 2, -3))
        rows[i] = (*front, wrap(code + step, fmt.width))
    return rows
