"""Integer arithmetic, from the semantics in the PTX ISA, section 9.7.1 and 9.7.2."""

from .forms import (
    Form,
    bounds,
    dotted,
    halves,
    product,
    saturate,
    signed,
    simple,
    value,
    width,
    wrap,
)

INTEGERS = ("u16", "s16", "u32", "s32", "u64", "s64")
WIDE = {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}


def arithmetic(f, t):
    """f of the values, cut to the type's width."""
    return lambda *codes: wrap(f(*(value(c, t) for c in codes)), width(t))


def clamped(f):
    return lambda *codes: wrap(saturate(f(*(signed(c, 32) for c in codes)), *bounds("s32")), 32)


def quotient(a, b):
    """C's; by zero all ones, which is what the machine gives (the ISA leaves it open)."""
    if b == 0:
        return -1
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


def remainder(a, b):
    return a if b == 0 else a - b * quotient(a, b)


def by_half_words(f, t):
    def both(a, b):
        parts = zip(halves(a), halves(b), strict=True)
        low, high = (wrap(f(value(x, t), value(y, t)), 16) for x, y in parts)
        return low | high << 16

    return both


def relu(f):
    return lambda a, b: max(f(a, b), 0)


def binary_forms():
    for t in INTEGERS:
        two, n = (t, t), width(t)
        yield simple(f"add.{t}", t, two, arithmetic(lambda a, b: a + b, t))
        yield simple(f"sub.{t}", t, two, arithmetic(lambda a, b: a - b, t))
        yield simple(f"mul.lo.{t}", t, two, arithmetic(lambda a, b: a * b, t))
        yield simple(f"mul.hi.{t}", t, two, arithmetic(lambda a, b, n=n: (a * b) >> n, t))
        yield simple(f"div.{t}", t, two, arithmetic(quotient, t))
        yield simple(f"rem.{t}", t, two, arithmetic(remainder, t))
        yield simple(f"min.{t}", t, two, arithmetic(min, t))
        yield simple(f"max.{t}", t, two, arithmetic(max, t))
    for t, wide in WIDE.items():
        yield simple(
            f"mul.wide.{t}",
            wide,
            (t, t),
            lambda a, b, t=t, w=wide: wrap(value(a, t) * value(b, t), width(w)),
        )
    yield simple("add.sat.s32", "s32", ("s32", "s32"), clamped(lambda a, b: a + b))
    yield simple("sub.sat.s32", "s32", ("s32", "s32"), clamped(lambda a, b: a - b))
    for op, f in (("min", min), ("max", max)):
        yield simple(f"{op}.relu.s32", "s32", ("s32", "s32"), arithmetic(relu(f), "s32"))
        yield simple(f"{op}.relu.s16x2", "s16x2", ("s16x2",) * 2, by_half_words(relu(f), "s16"))
        for t in ("u16", "s16"):
            yield simple(f"{op}.{t}x2", t + "x2", (t + "x2",) * 2, by_half_words(f, t))
    for t in ("u16", "s16"):
        yield simple(f"add.{t}x2", t + "x2", (t + "x2",) * 2, by_half_words(lambda a, b: a + b, t))


def unary_forms():
    for t in ("s16", "s32", "s64"):
        yield simple(f"neg.{t}", t, (t,), arithmetic(lambda a: -a, t))
        yield simple(f"abs.{t}", t, (t,), arithmetic(abs, t))


def field24(code, t):
    """The value of the low 24 bits."""
    return signed(code & 0xFFFFFF, 24) if t == "s32" else code & 0xFFFFFF


def ternary_forms():
    for t in INTEGERS:
        n = width(t)
        yield simple(f"mad.lo.{t}", t, (t,) * 3, arithmetic(lambda a, b, c: a * b + c, t))
        yield simple(
            f"mad.hi.{t}", t, (t,) * 3, arithmetic(lambda a, b, c, n=n: (a * b >> n) + c, t)
        )
        yield simple(f"sad.{t}", t, (t,) * 3, arithmetic(lambda a, b, c: c + abs(a - b), t))
    for t, wide in WIDE.items():
        yield simple(
            f"mad.wide.{t}",
            wide,
            (t, t, wide),
            lambda a, b, c, t=t, w=wide: wrap(value(a, t) * value(b, t) + c, width(w)),
        )
    yield simple("mad.hi.sat.s32", "s32", ("s32",) * 3, clamped(lambda a, b, c: (a * b >> 32) + c))
    for t, (half, shift) in product(("u32", "s32"), (("lo", 0), ("hi", 16))):

        def product24(a, b, t=t, shift=shift):
            return field24(a, t) * field24(b, t) >> shift

        yield simple(f"mul24.{half}.{t}", t, (t, t), lambda a, b, f=product24: wrap(f(a, b), 32))
        yield simple(
            f"mad24.{half}.{t}", t, (t,) * 3, lambda a, b, c, f=product24: wrap(f(a, b) + c, 32)
        )
    yield simple(
        "mad24.hi.sat.s32",
        "s32",
        ("s32",) * 3,
        lambda a, b, c: wrap(
            saturate(
                signed(wrap(field24(a, "s32") * field24(b, "s32") >> 16, 32), 32) + signed(c, 32),
                *bounds("s32"),
            ),
            32,
        ),
    )


def parts(code, bits, t):
    """Of a word, lowest first, extended by the sign if t is signed."""
    cut = [code >> at & ((1 << bits) - 1) for at in range(0, 32, bits)]
    return [signed(x, bits) if t == "s32" else x for x in cut]


def dot_forms():
    for ta, tb in product(("u32", "s32"), ("u32", "s32")):
        c = "u32" if ta == tb == "u32" else "s32"

        def four(a, b, c, ta=ta, tb=tb):
            pairs = zip(parts(a, 8, ta), parts(b, 8, tb), strict=True)
            return wrap(c + sum(x * y for x, y in pairs), 32)

        yield simple(f"dp4a.{ta}.{tb}", c, (ta, tb, c), four)
        for mode, first in (("lo", 0), ("hi", 2)):

            def two(a, b, c, ta=ta, tb=tb, first=first):
                x, y = parts(a, 16, ta), parts(b, 8, tb)[first : first + 2]
                return wrap(c + x[0] * y[0] + x[1] * y[1], 32)

            yield simple(f"dp2a.{mode}.{ta}.{tb}", c, (ta, tb, c), two)


# With carries. The flag goes in as (u != 0) and comes out by an addc or, of a borrow, a subc.
SET_FLAG = "$g add.cc.u32 $t0, $u, -1;\n"
READ_FLAG = "\n$g addc.u32 $d1, 0, 0;"


def carry_forms():
    for t, takes, sets in product(("u32", "s32", "u64", "s64"), (False, True), (False, True)):
        n = width(t)
        if not takes and not sets:
            continue

        def body(word, sources, takes=takes, sets=sets):
            set_flag = SET_FLAG.replace("$u", "$c" if sources == 2 else "$e") if takes else ""
            operands = ", ".join(f"${x}" for x in "abc"[:sources])
            return f"{set_flag}$g {word} $d0, {operands};" + (READ_FLAG if sets else "")

        def results(total, n=n, sets=sets):
            return (wrap(total, n), *([total >> n & 1] if sets else []))

        outs = (t, "u32") if sets else (t,)
        word = dotted("addc" if takes else "add", "cc" if sets else "", t)
        yield Form(
            word,
            outs,
            (t, t, "u32"),
            lambda a, b, u, takes=takes, r=results: r(a + b + (takes and u != 0)),
            body(word, 2),
        )
        word = dotted("subc" if takes else "sub", "cc" if sets else "", t)
        yield Form(
            word,
            outs,
            (t, t, "u32"),
            lambda a, b, u, takes=takes, r=results: r(a - b - (takes and u != 0)),
            body(word, 2),
        )
        for half in ("lo", "hi"):

            def multiplied(a, b, c, u, t=t, n=n, half=half, takes=takes, r=results):
                p = value(a, t) * value(b, t)
                return r(wrap(p if half == "lo" else p >> n, n) + c + (takes and u != 0))

            word = dotted("madc" if takes else "mad", half, "cc" if sets else "", t)
            yield Form(word, outs, (t, t, t, "u32"), multiplied, body(word, 3))


def forms():
    yield from binary_forms()
    yield from unary_forms()
    yield from ternary_forms()
    yield from dot_forms()
    yield from carry_forms()
