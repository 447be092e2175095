"""mov between registers, packing and unpacking; addresses and clocks are in test_move.py."""

from .forms import Form, simple, width, wrap

TYPES = (
    "pred", "b16", "b32", "b64", "u16", "u32", "u64", "s16", "s32", "s64", "f32", "f64",
)  # fmt: skip


def forms():
    for t in TYPES:
        yield simple(f"mov.{t}", t, (t,), lambda a: a)
    yield Form("mov.pred", ("pred",), (), lambda: (1,), "$g mov.pred $d0, -1;")
    yield Form("mov.pred", ("pred",), (), lambda: (0,), "$g mov.pred $d0, 0;")
    for t, bits in (("b16", 0xBEEF), ("b32", 0x80000001), ("b64", 0xFEDCBA9876543210)):
        yield Form(f"mov.{t}", (t,), (), lambda b=bits: (b,), f"$g mov.{t} $d0, {bits};")
    yield Form("mov.f32", ("f32",), (), lambda: (0x3FC00000,), "$g mov.f32 $d0, 0f3FC00000;")
    yield Form("mov.f32", ("f32",), (), lambda: (0xC0200000,), "$g mov.f32 $d0, -2.5;")
    yield Form("mov.f64", ("f64",), (), lambda: (0x3FF8000000000000,), "$g mov.f64 $d0, 1.5;")
    for t, part, n in (("b32", "b16", 2), ("b64", "b32", 2), ("b64", "b16", 4)):
        w = width(part)
        names = ("$a", "$b", "$c", "$e")[:n]

        def joined(*codes, w=w):
            return (sum(c << i * w for i, c in enumerate(codes)),)

        yield Form(
            f"mov.{t}", (t,), (part,) * n, joined, f"$g mov.{t} $d0, {{{', '.join(names)}}};"
        )
        # A constant beside registers.
        yield Form(
            f"mov.{t}",
            (t,),
            (part,) * (n - 1),
            lambda *codes, f=joined: f(7, *codes),
            f"$g mov.{t} $d0, {{7, {', '.join(names[: n - 1])}}};",
        )

        def split(a, w=w, n=n):
            return tuple(wrap(a >> i * w, w) for i in range(n))

        results = [f"$d{i}" for i in range(n)]
        yield Form(
            f"mov.{t}", (part,) * n, (t,), split, f"$g mov.{t} {{{', '.join(results)}}}, $a;"
        )
        for kept in range(n):
            sinks = ["$d0" if i == kept else "_" for i in range(n)]
            yield Form(
                f"mov.{t}",
                (part,),
                (t,),
                lambda a, f=split, k=kept: f(a)[k : k + 1],
                f"$g mov.{t} {{{', '.join(sinks)}}}, $a;",
            )
    yield Form(
        "mov.b128",
        ("b64", "b64"),
        ("b64", "b64"),
        lambda a, b: (b, a),
        "{.reg .b128 %q<2>;\nmov.b128 %q0, {$a, $b};\nmov.b128 %q1, %q0;\n"
        "$g mov.b128 {$d1, $d0}, %q1;}",
    )
