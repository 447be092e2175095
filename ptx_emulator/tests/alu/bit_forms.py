"""Logic, shifts and bit fields, from the semantics in the PTX ISA."""

from .forms import Form, product, simple, value, width, wrap

BITS = ("b16", "b32", "b64")
AMOUNT = "u32:amount"


def logic_forms():
    operations = {
        "and": lambda a, b: a & b,
        "or": lambda a, b: a | b,
        "xor": lambda a, b: a ^ b,
    }
    for t in ("pred", *BITS):
        n = width(t)
        for op, f in operations.items():
            yield simple(f"{op}.{t}", t, (t, t), f)
        yield simple(f"not.{t}", t, (t,), lambda a, n=n: wrap(~a, n))
    for t in BITS:
        yield simple(f"cnot.{t}", t, (t,), lambda a: int(a == 0))


def shift_forms():
    for t in BITS:
        yield simple(f"shl.{t}", t, (t, AMOUNT), lambda a, n, t=t: wrap(a << min(n, 99), width(t)))
    for t in (*BITS, "u16", "u32", "u64", "s16", "s32", "s64"):
        yield simple(
            f"shr.{t}", t, (t, AMOUNT), lambda a, n, t=t: wrap(value(a, t) >> min(n, 99), width(t))
        )
    for left, clamp in product((True, False), (True, False)):

        def funnel(a, b, c, left=left, clamp=clamp):
            n = min(c, 32) if clamp else c & 31
            both = b << 32 | a
            return wrap(both << n >> 32 if left else both >> n, 32)

        mode = ("l" if left else "r") + (".clamp" if clamp else ".wrap")
        yield simple(f"shf.{mode}.b32", "b32", ("b32", "b32", AMOUNT), funnel)


def extract(a, pos, length, t):
    msb = width(t) - 1
    pos, length = pos & 255, length & 255
    sign = 0 if t[0] == "u" or length == 0 else a >> min(pos + length - 1, msb) & 1
    bits = (
        (a >> (pos + i) & 1 if i < length and pos + i <= msb else sign) << i for i in range(msb + 1)
    )
    return sum(bits)


def insert(a, b, pos, length, msb):
    pos, length = pos & 255, length & 255
    for i in range(min(length, max(msb + 1 - pos, 0))):
        b = b & ~(1 << (pos + i)) | (a >> i & 1) << (pos + i)
    return b


def find(a, t, shift_amount):
    msb = width(t) - 1
    if t[0] == "s" and a >> msb:
        a = wrap(~a, msb + 1)
    if a == 0:
        return 0xFFFFFFFF
    at = a.bit_length() - 1
    return msb - at if shift_amount else at


def mask(a, b, clamp):
    a1, b1 = a & 31, b & 31
    mask0, total = wrap(~0 << a1, 32), a1 + b1
    mask1 = wrap(~0 << total, 32)
    if clamp and a >= 32:
        mask0 = 0
    if total >= 32 or (clamp and (a >= 32 or b >= 32)):
        mask1 = 0
    elif b1 == 0:
        mask1 = wrap(~0, 32)
    return mask0 & ~mask1


def extend(a, b, t, clamp):
    n = b & 31
    ones = 0 if clamp and b >= 32 else wrap(~0 << n, 32)
    whole = n == 0 or (clamp and b >= 32)
    negative = not whole and t == "s32" and a >> ((n - 1) & 31) & 1
    return a & ~ones | (ones if negative else 0)


def field_forms():
    for t in ("u32", "s32", "u64", "s64"):
        yield simple(f"bfe.{t}", t, (t, AMOUNT, AMOUNT), lambda a, p, n, t=t: extract(a, p, n, t))
        for amount in (False, True):
            word = f"bfind.{'shiftamt.' if amount else ''}{t}"
            yield simple(word, "u32", (t,), lambda a, t=t, s=amount: find(a, t, s))
    for t in ("b32", "b64"):
        n = width(t)
        yield simple(
            f"bfi.{t}", t, (t, t, AMOUNT, AMOUNT), lambda a, b, p, k, n=n: insert(a, b, p, k, n - 1)
        )
        yield simple(f"popc.{t}", "u32", (t,), lambda a: a.bit_count())
        yield simple(f"clz.{t}", "u32", (t,), lambda a, n=n: n - a.bit_length())
        yield simple(f"brev.{t}", t, (t,), lambda a, n=n: int(f"{a:0{n}b}"[::-1], 2))
    for mode in ("clamp", "wrap"):
        clamp = mode == "clamp"
        yield simple(
            f"bmsk.{mode}.b32", "b32", (AMOUNT, AMOUNT), lambda a, b, c=clamp: mask(a, b, c)
        )
        for t in ("u32", "s32"):
            yield simple(
                f"szext.{mode}.{t}", t, (t, AMOUNT), lambda a, b, t=t, c=clamp: extend(a, b, t, c)
            )


def permuted(a, b, selectors):
    source = b << 32 | a
    out = 0
    for i, s in enumerate(selectors):
        byte = source >> 8 * (s & 7) & 255
        if s & 8:
            byte = 255 if byte & 128 else 0
        out |= byte << 8 * i
    return out


# The table of the ISA: source bytes for d.b3 d.b2 d.b1 d.b0, by the control value.
PERMUTATIONS = {
    "f4e": ("3210", "4321", "5432", "6543"),
    "b4e": ("5670", "6701", "7012", "0123"),
    "rc8": ("0000", "1111", "2222", "3333"),
    "ecl": ("3210", "3211", "3222", "3333"),
    "ecr": ("0000", "1110", "2210", "3210"),
    "rc16": ("1010", "3232", "1010", "3232"),
}


def permutation_forms():
    three = ("b32",) * 3
    yield simple(
        "prmt.b32",
        "b32",
        three,
        lambda a, b, c: permuted(a, b, [c >> 4 * i & 15 for i in range(4)]),
    )
    for selector in (0x3210, 0x5410, 0x7632, 0x7610, 0x0123, 0x8ABC, 0xFFFF, 0x4F08):
        picks = [selector >> 4 * i & 15 for i in range(4)]
        yield Form(
            "prmt.b32",
            ("b32",),
            ("b32", "b32"),
            lambda a, b, s=picks: (permuted(a, b, s),),
            f"$g prmt.b32 $d0, $a, $b, {selector};",
        )
    for mode, table in PERMUTATIONS.items():

        def special(a, b, c, table=table):
            return permuted(a, b, [int(s) for s in reversed(table[c & 3])])

        yield simple(f"prmt.b32.{mode}", "b32", three, special)


TABLES = (0x00, 0x01, 0x1A, 0x40, 0x80, 0x96, 0xCA, 0xE8, 0xF0, 0xFE, 0xFF, 0x3C, 0x5A)


def lookup(a, b, c, table):
    out = 0
    for i in range(32):
        index = (a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1)
        out |= (table >> index & 1) << i
    return out


def lop3_forms():
    three = ("b32",) * 3
    for table in TABLES:
        yield Form(
            "lop3.b32",
            ("b32",),
            three,
            lambda a, b, c, k=table: (lookup(a, b, c, k),),
            f"$g lop3.b32 $d0, $a, $b, $c, {table};",
        )
    for op, table in product(("or", "and"), (0x96, 0x00, 0x80)):

        def with_predicate(a, b, c, q, op=op, table=table):
            d = lookup(a, b, c, table)
            return (d, int((d != 0) | q if op == "or" else (d != 0) & q))

        word = f"lop3.{op}.b32"
        yield Form(
            word,
            ("b32", "pred"),
            (*three, "pred"),
            with_predicate,
            f"$g {word} $d0|$d1, $a, $b, $c, {table}, $e;",
        )
        yield Form(
            word,
            ("pred",),
            (*three, "pred"),
            lambda a, b, c, q, f=with_predicate: f(a, b, c, q)[1:],
            f"$g {word} _|$d0, $a, $b, $c, {table}, $e;",
        )


def forms():
    yield from logic_forms()
    yield from shift_forms()
    yield from field_forms()
    yield from permutation_forms()
    yield from lop3_forms()
