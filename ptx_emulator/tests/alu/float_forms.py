"""Arithmetic of f32, f64, f16 and bf16: one rounding of the exact result."""

import math

from . import numbers
from .forms import Form, by_halves, dotted, product, simple
from .numbers import BF16, F16, F32, F64, FORMATS, decode, encode, flush, is_nan

MODES = ("", "rn", "rz", "rm", "rp")


def clamp_to_one(code, fmt):
    """.sat: to [+0, 1], NaN to +0."""
    if is_nan(code, fmt) or code & fmt.sign:
        return 0
    return min(code, fmt.one)


def rounded(f, fmt, mode="", ftz=False, sat=False, relu=False):
    mode = mode or "rn"

    def reference(*codes):
        if ftz:
            codes = [flush(c, fmt) for c in codes]
        code = encode(f(*(decode(c, fmt) for c in codes), mode), fmt, mode)
        if ftz:
            code = flush(code, fmt)
        if sat:
            code = clamp_to_one(code, fmt)
        if relu and code & fmt.sign:
            code = 0
        # The ISA supports NaN payloads in f64, but leaves open which operand's.
        return None if fmt is F64 and code == fmt.nan else code

    return reference


OPERATIONS = {
    "add": (numbers.add, 2), "sub": (numbers.sub, 2), "mul": (numbers.mul, 2),
    "fma": (numbers.fma, 3), "mad": (numbers.fma, 3), "div": (numbers.div, 2),
    "rcp": (lambda x, mode: numbers.div(numbers.finite(1), x, mode), 1),
    "sqrt": (numbers.sqrt, 1),
}  # fmt: skip


def rounded_forms():
    for op, (f, arity) in OPERATIONS.items():
        optional = op in ("add", "sub", "mul")
        for t in ("f32", "f64"):
            fmt = FORMATS[t]
            flags = product((False, True), (False, True)) if t == "f32" else [(False, False)]
            for (ftz, sat), mode in product(flags, MODES if optional else MODES[1:]):
                if sat and op in ("div", "rcp", "sqrt"):
                    continue
                word = dotted(op, mode, "ftz" if ftz else "", "sat" if sat else "", t)
                yield simple(word, t, (t,) * arity, rounded(f, fmt, mode, ftz, sat))


def half_types(reference_of, word_of, t, arity, fmt):
    """The form for single halves and that for pairs."""
    f = reference_of(fmt)
    yield simple(word_of(t), t, (t,) * arity, f)
    yield simple(word_of(t + "x2"), t + "x2", (t + "x2",) * arity, by_halves(f))


def half_forms():
    for t, fmt in (("f16", F16), ("bf16", BF16)):
        for op in ("add", "sub", "mul", "fma"):
            f, arity = OPERATIONS[op]
            for mode, ftz, last in product(
                ("rn",) if op == "fma" else ("", "rn"),
                (False, True) if fmt is F16 else (False,),
                ("", "sat", "relu"),
            ):
                if (last == "relu" and op != "fma") or (last == "sat" and fmt is BF16):
                    continue
                yield from half_types(
                    lambda fmt, f=f, ftz=ftz, last=last: rounded(
                        f, fmt, "rn", ftz, last == "sat", last == "relu"
                    ),
                    lambda t, op=op, mode=mode, ftz=ftz, last=last: dotted(
                        op, mode, "ftz" if ftz else "", last, t
                    ),
                    t, arity, fmt,
                )  # fmt: skip


def order(code, fmt):
    """Numbers by size, -0 below +0."""
    return -1 - (code ^ fmt.sign) if code & fmt.sign else code


def min_max(fmt, largest, nan, xorsign, ftz):
    def reference(a, b):
        if ftz:
            a, b = flush(a, fmt), flush(b, fmt)
        sign = (a ^ b) & fmt.sign if xorsign else 0
        if xorsign:
            a, b = a & ~fmt.sign, b & ~fmt.sign
        a_nan, b_nan = is_nan(a, fmt), is_nan(b, fmt)
        if (a_nan and b_nan) or (nan and (a_nan or b_nan)):
            return None if fmt is F64 else fmt.nan
        if a_nan or b_nan:
            return (b if a_nan else a) | sign
        return (max if largest else min)(a, b, key=lambda c: order(c, fmt)) | sign

    return reference


def min_max_forms():
    for op, t in product(("min", "max"), ("f32", "f16", "bf16")):
        fmt = FORMATS[t]
        for ftz, nan, xorsign in product((False, True), (False, True), (False, True)):
            if ftz and fmt is BF16:
                continue

            def word(t, op=op, ftz=ftz, nan=nan, xorsign=xorsign):
                flags = (
                    "ftz" if ftz else "",
                    "NaN" if nan else "",
                    "xorsign.abs" if xorsign else "",
                )
                return dotted(op, *flags, t)

            f = min_max(fmt, op == "max", nan, xorsign, ftz)
            yield simple(word(t), t, (t, t), f)
            if fmt is not F32:
                yield simple(word(t + "x2"), t + "x2", (t + "x2",) * 2, by_halves(f))
    for op in ("min", "max"):
        yield simple(f"{op}.f64", "f64", ("f64", "f64"), min_max(F64, op == "max", 0, 0, 0))


def sign_forms():
    """neg and abs: of NaN they give some NaN."""

    def reference(fmt, f, ftz):
        def one(a):
            a = flush(a, fmt) if ftz else a
            return None if is_nan(a, fmt) else f(a)

        return one

    for op, t in product(("neg", "abs"), ("f32", "f64", "f16", "bf16")):
        fmt = FORMATS[t]

        def f(a, fmt=fmt, op=op):
            return a ^ fmt.sign if op == "neg" else a & ~fmt.sign

        for ftz in (False, True):
            if ftz and t in ("f64", "bf16"):
                continue
            one = reference(fmt, f, ftz)
            yield simple(dotted(op, "ftz" if ftz else "", t), t, (t,), one)
            if t in ("f16", "bf16"):
                x2 = t + "x2"
                yield Form(
                    dotted(op, "ftz" if ftz else "", x2),
                    (x2,),
                    (x2,),
                    None,
                    accept=pair_of_nans_or(one, fmt),
                )
    for t in ("f32", "f64"):
        fmt = FORMATS[t]
        yield simple(f"copysign.{t}", t, (t, t), lambda a, b, fmt=fmt: a & fmt.sign | b & ~fmt.sign)


def pair_of_nans_or(one, fmt):
    def accept(ins, outs):
        for i in (0, 16):
            expected, got = one(ins[0] >> i & 0xFFFF), outs[0] >> i & 0xFFFF
            if not (is_nan(got, fmt) if expected is None else got == expected):
                return False
        return True

    return accept


def test_forms():
    tests = {
        "finite": lambda c, f: decode(c, f).kind == "finite",
        "infinite": lambda c, f: decode(c, f).kind == "infinite",
        "number": lambda c, f: decode(c, f).kind != "nan",
        "notanumber": lambda c, f: decode(c, f).kind == "nan",
        "normal": lambda c, f: decode(c, f).kind == "finite" and not numbers.is_subnormal(c, f),
        "subnormal": numbers.is_subnormal,
    }
    for (name, f), t in product(tests.items(), ("f32", "f64")):
        fmt = FORMATS[t]
        yield simple(f"testp.{name}.{t}", "pred", (t,), lambda a, f=f, fmt=fmt: int(f(a, fmt)))


# Approximate functions. `special`: results that the ISA's tables fix; elsewhere the error, relative
# or absolute, is at most the bound.


def real(code, fmt):
    x = decode(code, fmt)
    if x.kind == "finite":
        return math.copysign(float(x.magnitude), -1 if x.negative else 1)
    return math.nan if x.kind == "nan" else math.copysign(math.inf, -1 if x.negative else 1)


def close(f, fmt, ftz=False, relative=0.0, absolute=0.0, inside=lambda *x: True):
    def one(codes, got):
        codes = [flush(c, fmt) for c in codes] if ftz else codes
        exact = f(*(real(c, fmt) for c in codes))
        if exact is None or not inside(*(real(c, fmt) for c in codes)):
            return True
        if exact != exact:
            return is_nan(got, fmt)
        if exact in (0, math.inf, -math.inf):
            return got == encode_real(exact, fmt)
        # In the last places a result may also be off by its own rounding.
        least = real(1 << fmt.fraction_bits, fmt) if ftz else real(1, fmt)
        tolerance = max(relative * abs(exact), absolute) + least / 2
        value = real(got, fmt)
        if abs(value) == math.inf:
            limit = real(fmt.largest, fmt)
            return abs(exact) * (1 + relative) >= limit and (value > 0) == (exact > 0)
        if ftz and value == 0:
            return abs(exact) <= 2 * least
        if ftz and numbers.is_subnormal(got, fmt):
            return False
        return abs(value - exact) <= tolerance

    return one


def encode_real(x, fmt):
    if x in (math.inf, -math.inf):
        return encode(numbers.infinity(x < 0), fmt)
    return encode(numbers.finite(x, math.copysign(1, x) < 0), fmt)


def accept_one(f):
    return lambda ins, outs: f(ins, outs[0])


def accept_halves(f):
    def accept(ins, outs):
        return all(f([c >> i & 0xFFFF for c in ins], outs[0] >> i & 0xFFFF) for i in (0, 16))

    return accept


def approximate(word, t, arity, f):
    fmt_pair = t.endswith("x2")
    return Form(
        word, (t,), (t,) * arity, None, accept=accept_halves(f) if fmt_pair else accept_one(f)
    )


def quotient(a, b):
    if a != a or b != b:
        return math.nan
    if b == 0:
        return math.nan if a == 0 else math.copysign(math.inf, a) * math.copysign(1, b)
    return a / b


def approximate_quotient(a, b):
    """Beyond 2^126 the ISA promises NaN or 0; the sign of the latter it leaves open."""
    if 2.0**126 < abs(b) < math.inf:
        return math.nan if math.isinf(a) or a != a else None
    return quotient(a, b)


def root(a):
    return math.nan if a < 0 or a != a else math.sqrt(a)


def inverse_root(a):
    return quotient(1.0, -0.0 if a == 0 and math.copysign(1, a) < 0 else root(a))


def exponential(a):
    return 0.0 if a < -2000 else math.inf if a > 1023 else 2.0**a


def logarithm(a):
    if a == 0:
        return -math.inf
    return math.nan if a < 0 or a != a else a if a == math.inf else math.log2(a)


def circular(f):
    return lambda a: math.nan if math.isinf(a) else f(a)


def approximate_forms():
    for ftz in (False, True):
        f = "ftz" if ftz else ""
        yield approximate(
            dotted("rcp.approx", f, "f32"), "f32", 1,
            close(lambda a: quotient(1.0, a), F32, ftz, relative=2**-23),
        )  # fmt: skip
        yield approximate(
            dotted("sqrt.approx", f, "f32"), "f32", 1, close(root, F32, ftz, relative=2**-23)
        )
        yield approximate(
            dotted("rsqrt.approx", f, "f32"), "f32", 1,
            close(inverse_root, F32, ftz, relative=2**-22.9),
        )  # fmt: skip
        yield approximate(
            dotted("div.full", f, "f32"), "f32", 2, close(quotient, F32, ftz, relative=2**-22)
        )
        yield approximate(
            dotted("div.approx", f, "f32"), "f32", 2,
            close(
                approximate_quotient, F32, ftz, relative=2**-22,
                inside=lambda a, b: not 0 < abs(b) < 2.0**-126,
            ),
        )  # fmt: skip
        yield approximate(
            dotted("ex2.approx", f, "f32"), "f32", 1, close(exponential, F32, ftz, relative=2**-22)
        )
        yield approximate(
            dotted("lg2.approx", f, "f32"), "f32", 1,
            close(logarithm, F32, ftz, relative=2**-22, absolute=2**-22),
        )  # fmt: skip
        for name, g in (("sin", math.sin), ("cos", math.cos)):
            yield approximate(
                dotted(name, "approx", f, "f32"), "f32", 1,
                close(
                    circular(g), F32, ftz, absolute=2**-20.5,
                    inside=lambda a: a != a or math.isinf(a) or abs(a) <= 2 * math.pi,
                ),
            )  # fmt: skip
    yield approximate("rsqrt.approx.f64", "f64", 1, close(inverse_root, F64, relative=2**-51))
    yield approximate("tanh.approx.f32", "f32", 1, close(math.tanh, F32, relative=2**-11))
    for t, fmt in (("f16", F16), ("bf16", BF16)):
        for x2 in ("", "x2"):
            tanh = close(math.tanh, fmt, absolute=2**-10.987 if fmt is F16 else 2**-8)
            yield approximate(f"tanh.approx.{t}{x2}", t + x2, 1, tanh)
            ftz = fmt is BF16
            ex2 = close(exponential, fmt, ftz, relative=2**-7 if ftz else 2**-9.9)
            yield approximate(f"ex2.approx.{'ftz.' if ftz else ''}{t}{x2}", t + x2, 1, ex2)


def forms():
    yield from rounded_forms()
    yield from half_forms()
    yield from min_max_forms()
    yield from sign_forms()
    yield from test_forms()
    yield from approximate_forms()
