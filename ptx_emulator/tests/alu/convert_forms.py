"""cvt and cvt.pack."""

from . import numbers
from .float_forms import clamp_to_one
from .forms import Form, bounds, dotted, product, saturate, simple, value, width, wrap
from .numbers import E4M3, E5M2, F16, F32, FORMATS, decode, encode, flush

INTEGERS = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
FLOATS = ("f16", "bf16", "f32", "f64")
INTEGER_MODES = {"rni": "rn", "rzi": "rz", "rmi": "rm", "rpi": "rp"}
MODES = ("rn", "rz", "rm", "rp")


def register_kinds(t):
    """Registers that may hold an operand of the type: as wide, or wider."""
    least = max(width(t), 16)
    return [f"b{n}" for n in (16, 32, 64) if n >= least]


def in_registers(word, to, source, reference):
    """The form with the source, then the result, in all registers that may hold them."""
    if "bf16" in (to, source) and 8 in (width(to), width(source)):
        return  # ptxas takes these with registers of 8 bits only
    sources, results = register_kinds(source), register_kinds(to)
    pairs = [(s, results[0]) for s in sources] + [(sources[0], r) for r in results[1:]]
    # bf16 must have registers of its own width, and ptxas takes no wider one for cvt.ftz.f32.f64.
    if "bf16" in (to, source) or ("ftz" in word and to == "f32" and source == "f64"):
        pairs = pairs[:1]
    for source_register, result_register in pairs:

        def convert(a, register=result_register):
            code = reference(a & ((1 << width(source)) - 1))
            if code is not None and to[0] == "s":
                code = wrap(value(code, to), width(register))
            return (code,)

        nan = to if to in FORMATS else ""
        yield Form(word, (result_register,), (f"{source_register}:{source}",), convert, nan=nan)


def integer_forms():
    for to, source in product(INTEGERS, INTEGERS):
        low, high = bounds(to)
        n = width(to)
        yield from in_registers(
            f"cvt.{to}.{source}", to, source, lambda a, s=source, n=n: wrap(value(a, s), n)
        )
        inside = bounds(source)[0] >= low and bounds(source)[1] <= high
        if not inside:
            yield from in_registers(
                f"cvt.sat.{to}.{source}",
                to,
                source,
                lambda a, s=source, n=n, lo=low, hi=high: wrap(saturate(value(a, s), lo, hi), n),
            )


def float_to_integer_forms():
    for to, source, mode in product(INTEGERS, FLOATS, INTEGER_MODES):
        for ftz, sat in product((False, True), (False, True)):
            if (ftz and source != "f32") or (sat and source == "bf16"):
                continue

            def convert(a, to=to, source=source, mode=INTEGER_MODES[mode], ftz=ftz):
                fmt = FORMATS[source]
                x = decode(flush(a, fmt) if ftz else a, fmt)
                n = width(to)
                if x.kind == "nan":
                    return 1 << (n - 1) if source == "f64" or n == 64 else 0
                low, high = bounds(to)
                if x.kind == "infinite":
                    return wrap(low if x.negative else high, n)
                units = numbers.round_units(x.magnitude, mode, x.negative)
                return wrap(saturate(-units if x.negative else units, low, high), n)

            yield from in_registers(
                dotted("cvt", mode, "ftz" if ftz else "", "sat" if sat else "", to, source),
                to,
                source,
                convert,
            )


def integer_to_float_forms():
    for to, source, mode in product(FLOATS, INTEGERS, MODES):
        for ftz, sat in product((False, True) if to == "f32" else (False,), (False, True)):
            if sat and to == "bf16":
                continue

            def convert(a, to=to, source=source, mode=mode, sat=sat):
                code = encode(numbers.finite(value(a, source)), FORMATS[to], mode)
                return clamp_to_one(code, FORMATS[to]) if sat else code

            word = dotted("cvt", mode, "ftz" if ftz else "", "sat" if sat else "", to, source)
            yield from in_registers(word, to, source, convert)


def narrows(to, source):
    a, b = FORMATS[to], FORMATS[source]
    return a.exponent_bits < b.exponent_bits or a.fraction_bits < b.fraction_bits


def float_to_float_forms():
    for to, source in product(FLOATS, FLOATS):
        modes = MODES if narrows(to, source) else ("",)
        if to == source:
            modes = ("", *INTEGER_MODES)
        elif source == "bf16" and to != "f16":
            modes = ("", *MODES)
        either = "f32" in (to, source)
        for mode, ftz, sat in product(modes, (False, True), (False, True)):
            if (ftz and not either) or (sat and "bf16" in (to, source)):
                continue

            def convert(a, to=to, source=source, mode=mode, ftz=ftz, sat=sat):
                into, fmt = FORMATS[to], FORMATS[source]
                x = decode(flush(a, fmt) if ftz and fmt is F32 else a, fmt)
                if mode in INTEGER_MODES:
                    x = numbers.round_to_integer(x, INTEGER_MODES[mode])
                code = encode(x, into, mode if mode in MODES else "rn")
                if ftz and into is F32:
                    code = flush(code, into)
                if sat:
                    return clamp_to_one(code, into)
                return None if x.kind == "nan" else code

            word = dotted("cvt", mode, "ftz" if ftz else "", "sat" if sat else "", to, source)
            yield from in_registers(word, to, source, convert)


def narrowed(fmt, mode="rn", relu=False, satfinite=False, source=F32):
    def convert(a):
        code = encode(decode(a, source), fmt, mode, satfinite)
        return 0 if relu and code & fmt.sign else code

    return convert


def half_pair_forms():
    for t, mode, relu, satfinite in product(
        ("f16", "bf16"), ("rn", "rz"), (False, True), (False, True)
    ):
        f = narrowed(FORMATS[t], mode, relu, satfinite)
        flags = dotted("cvt", mode, "relu" if relu else "", "satfinite" if satfinite else "")
        if relu or satfinite:
            yield simple(f"{flags}.{t}.f32", t, ("f32",), f)
        yield simple(
            f"{flags}.{t}x2.f32", t + "x2", ("f32", "f32"), lambda a, b, f=f: f(a) << 16 | f(b)
        )


def tf32_of(mode, relu, satfinite):
    """f32 with 10 bits of fraction and zeros below."""
    fmt = numbers.Format("tf32", 8, 10)

    def convert(a):
        code = encode(decode(a, F32), fmt, mode, satfinite)
        if code == fmt.nan:
            return F32.nan
        return 0 if relu and code & fmt.sign else code << 13

    return convert


def tf32_forms():
    for mode, relu, satfinite in (
        ("rna", False, False), ("rna", False, True),
        ("rn", False, False), ("rn", True, False), ("rz", False, False), ("rz", True, False),
    ):  # fmt: skip
        word = dotted(
            "cvt", mode, "satfinite" if satfinite else "", "relu" if relu else "", "tf32.f32"
        )
        yield simple(word, "b32", ("f32",), tf32_of(mode, relu, satfinite))


def byte_forms():
    for (t, fmt), relu in product((("e4m3x2", E4M3), ("e5m2x2", E5M2)), (False, True)):
        r = "relu" if relu else ""
        f = narrowed(fmt, "rn", relu, True)
        word = dotted("cvt.rn.satfinite", r, t, "f32")
        yield simple(word, t, ("f32", "f32"), lambda a, b, f=f: f(a) << 8 | f(b))
        h = narrowed(fmt, "rn", relu, True, F16)
        word = dotted("cvt.rn.satfinite", r, t, "f16x2")
        yield simple(word, t, ("f16x2",), lambda a, h=h: h(a >> 16) << 8 | h(a & 0xFFFF))
        back = narrowed(F16, "rn", relu, False, fmt)
        word = dotted("cvt.rn", r, "f16x2", t)
        yield simple(word, "f16x2", (t,), lambda a, g=back: g(a >> 8) << 16 | g(a & 0xFF))


def pack_forms():
    for t in ("u16", "s16", "u8", "s8", "u4", "s4", "u2", "s2"):
        n = int(t[1:])
        low = -(1 << (n - 1)) if t[0] == "s" else 0
        high = low + (1 << n) - 1

        def packed(a, b, c=0, n=n, low=low, high=high):
            ta, tb = (wrap(saturate(value(x, "s32"), low, high), n) for x in (a, b))
            return wrap(c << 2 * n | ta << n | tb, 32) if n < 16 else ta << n | tb

        if n == 16:
            yield simple(f"cvt.pack.sat.{t}.s32", "b32", ("s32:any", "s32:any"), packed)
        else:
            yield simple(f"cvt.pack.sat.{t}.s32.b32", "b32", ("s32:any", "s32:any", "b32"), packed)


def forms():
    yield from integer_forms()
    yield from float_to_integer_forms()
    yield from integer_to_float_forms()
    yield from float_to_float_forms()
    yield from half_pair_forms()
    yield from tf32_forms()
    yield from byte_forms()
    yield from pack_forms()
