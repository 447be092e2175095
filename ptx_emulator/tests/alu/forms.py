"""What a tested instruction form is, and how its reference is written."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

WIDTHS = {
    "pred": 1, "b8": 8, "b16": 16, "b32": 32, "b64": 64, "b128": 128,
    "u8": 8, "u16": 16, "u32": 32, "u64": 64, "s8": 8, "s16": 16, "s32": 32, "s64": 64,
    "u16x2": 32, "s16x2": 32,
    "f16": 16, "bf16": 16, "f16x2": 32, "bf16x2": 32, "f32": 32, "f64": 64, "tf32": 32,
    "e4m3x2": 16, "e5m2x2": 16,
}  # fmt: skip


def width(kind):
    """Of an operand's kind: a type, perhaps with a hint for its values, "u32:amount"."""
    return WIDTHS[kind.split(":")[0]]


@dataclass(frozen=True)
class Form:
    word: str  # the opcode with its modifiers, in the order of the ISA's syntax
    outs: tuple[str, ...]
    ins: tuple[str, ...]
    # Codes of one lane's operands to those of its results; None for a result that may be any NaN.
    reference: Callable | None
    body: str = ""  # PTX; $d0 $d1 results, $a $b $c $e sources, $g the guard
    accept: Callable | None = None  # instead of a reference: (operands, results) to bool
    nan: str = ""  # the format of such a NaN, if not the first result's

    @property
    def text(self):
        if self.body:
            return self.body
        names = "abce"[: len(self.ins)]
        return f"$g {self.word} $d0, " + ", ".join(f"${n}" for n in names) + ";"


def simple(word, out, ins, reference):
    """A form with one result, whose reference returns just that."""
    return Form(word, (out,), tuple(ins), lambda *codes: (reference(*codes),))


def signed(code, bits):
    return code - (1 << bits) if code >> (bits - 1) & 1 else code


def value(code, kind):
    """The integer that a code is in an integer type."""
    return signed(code, width(kind)) if kind[0] == "s" else code


def wrap(x, bits):
    return x & ((1 << bits) - 1)


def saturate(x, low, high):
    return min(max(x, low), high)


def bounds(kind):
    bits = width(kind)
    if kind[0] == "s":
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1


def halves(code, bits=16):
    """(low, high)"""
    return code & ((1 << bits) - 1), code >> bits


def by_halves(f):
    """f on the low and the high halves of pairs."""

    def both(*codes):
        low, high = zip(*(halves(c) for c in codes), strict=True)
        return f(*low) | f(*high) << 16

    return both


def dotted(*parts):
    """Parts that are empty are left out."""
    return ".".join(p for p in parts if p)


def product(*choices):
    return itertools.product(*choices)
