"""setp, set, selp and slct."""

import operator
from functools import cache

from .forms import Form, dotted, halves, product, simple, value
from .numbers import FORMATS, decode, flush

INTEGERS = ("u16", "s16", "u32", "s32", "u64", "s64")
BITS = ("b16", "b32", "b64")
BOOLEANS = ("", "and", "or", "xor")


ORDERED = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
    "gt": operator.gt, "ge": operator.ge, "lo": operator.lt, "ls": operator.le,
    "hi": operator.gt, "hs": operator.ge,
}  # fmt: skip


def compare(relation, a, b):
    """Of Python numbers; None is NaN."""
    unordered = a is None or b is None
    if relation in ("num", "nan"):
        return unordered == (relation == "nan")
    if unordered:
        return relation.endswith("u")
    return ORDERED[relation.removesuffix("u")](a, b)


def relations(t):
    if t in BITS:
        return ("eq", "ne")
    ordered = ("eq", "ne", "lt", "le", "gt", "ge")
    if t[0] == "u":
        return (*ordered, "lo", "ls", "hi", "hs")
    if t[0] == "s":
        return ordered
    return (*ordered, *(r + "u" for r in ordered), "num", "nan")


@cache
def number(code, t, ftz=False):
    """Every float here is one of Python's, exactly."""
    if t in BITS:
        return code
    if t not in FORMATS:
        return value(code, t)
    x = decode(flush(code, FORMATS[t]) if ftz else code, FORMATS[t])
    if x.kind == "nan":
        return None
    magnitude = float("inf") if x.kind == "infinite" else float(x.magnitude)
    return -magnitude if x.negative else magnitude


def combine(op, t, c):
    return int({"": t, "and": t and c, "or": t or c, "xor": t != bool(c)}[op])


def comparisons():
    """(words before the type, type, .ftz, function of a and b, boolean)"""
    for t in (*BITS, *INTEGERS, "f32", "f64", "f16", "bf16"):
        for relation, boolean in product(relations(t), BOOLEANS):
            for ftz in (False, True) if t in ("f32", "f16") else (False,):

                def f(a, b, t=t, relation=relation, ftz=ftz):
                    return compare(relation, number(a, t, ftz), number(b, t, ftz))

                yield dotted(relation, boolean, "ftz" if ftz else ""), t, f, boolean


def setp_forms():
    for words, t, f, boolean in comparisons():
        word = f"setp.{words}.{t}"
        ins = (t, t, "pred") if boolean else (t, t)
        c = ", $c" if boolean else ""

        def both(a, b, c=0, f=f, op=boolean):
            hit = f(a, b)
            return combine(op, hit, c), combine(op, not hit, c)

        half = t in ("f16", "bf16")
        if not half:
            yield Form(word, ("pred", "pred"), ins, both, f"$g {word} $d0|$d1, $a, $b{c};")
        if half or words.startswith(("lt", "ne")):
            yield Form(word, ("pred",), ins, lambda *x, f=both: f(*x)[:1])
        if not half and words.startswith(("lt", "ne")):
            yield Form(
                word,
                ("pred",),
                ins,
                lambda *x, f=both: f(*x)[1:],
                f"$g {word} _|$d0, $a, $b{c};",
            )
            if boolean:
                yield Form(
                    word,
                    ("pred",),
                    ins,
                    lambda a, b, c, f=both: f(a, b, not c)[:1],
                    f"$g {word} $d0, $a, $b, !$c;",
                )
        if half:
            x2 = t + "x2"
            word = f"setp.{words}.{x2}"

            def pair(a, b, c=0, f=f, op=boolean):
                (a0, a1), (b0, b1) = halves(a), halves(b)
                return combine(op, f(a0, b0), c), combine(op, f(a1, b1), c)

            yield Form(
                word,
                ("pred", "pred"),
                tuple(x2 if i == t else i for i in ins),
                pair,
                f"$g {word} $d0|$d1, $a, $b{c};",
            )


TRUE = {
    "u16": 0xFFFF, "s16": 0xFFFF, "u32": 0xFFFFFFFF, "s32": 0xFFFFFFFF,
    "f32": 0x3F800000, "f16": 0x3C00, "bf16": 0x3F80,
}  # fmt: skip


def set_forms():
    for words, t, f, boolean in comparisons():
        half = t in ("f16", "bf16")
        to_types = ["u16", "s16", "u32", "s32"] if half else ["u32", "s32", "f32", "f16", "bf16"]
        for to in to_types + {"f16": ["f16", "bf16"], "bf16": ["bf16"]}.get(t, []):
            if to == "bf16" and "ftz" in words:
                continue
            ins = (t, t, "pred") if boolean else (t, t)
            yield simple(
                f"set.{words}.{to}.{t}",
                to,
                ins,
                lambda a, b, c=0, f=f, op=boolean, to=to: TRUE[to] * combine(op, f(a, b), c),
            )
        if half:
            for to, true in ((t + "x2", TRUE[t]), ("u32", 0xFFFF), ("s32", 0xFFFF)):

                def pair(a, b, c=0, f=f, op=boolean, true=true):
                    (a0, a1), (b0, b1) = halves(a), halves(b)
                    low, high = combine(op, f(a0, b0), c), combine(op, f(a1, b1), c)
                    return true * low | true * high << 16

                yield simple(
                    f"set.{words}.{to}.{t}x2",
                    to,
                    (t + "x2",) * 2 + (("pred",) if boolean else ()),
                    pair,
                )


def selection_forms():
    for t in (*BITS, *INTEGERS, "f32", "f64"):
        yield simple(f"selp.{t}", t, (t, t, "pred"), lambda a, b, p: a if p else b)
        yield simple(
            f"slct.{t}.s32", t, (t, t, "s32"), lambda a, b, c: a if value(c, "s32") >= 0 else b
        )
        for ftz in (False, True):

            def select(a, b, c, ftz=ftz):
                x = number(c, "f32", ftz)
                return a if x is not None and x >= 0 else b

            word = dotted("slct", "ftz" if ftz else "", t, "f32")
            yield simple(word, t, (t, t, "f32"), select)


def forms():
    yield from setp_forms()
    yield from set_forms()
    yield from selection_forms()
