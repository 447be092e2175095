"""Atomic operations of every type, against their sequential definition."""

import numpy as np
import pytest
import torch

from ptx_emulator import Unsupported

from .ptx_kernel import run

SPACES = ["global", "shared", ""]


def apply(op, type, initial, operands, compare=None, space="global"):
    """All threads of a warp apply op to one place; returns the place and what they got back."""
    dtype = initial.dtype
    size = dtype.itemsize
    register = {2: "%h", 4: "%r", 8: "%rd"}[size]
    load = f"ld.global.b{8 * size}"
    third = f", {register}5" if compare is not None else ""
    get_third = (
        f"add.u64 %rd14, %rd3, %rd13; {load} {register}5, [%rd14];" if compare is not None else ""
    )
    place = "[%rd10]" if space != "shared" else "[s]"
    through = {
        "global": "mov.u64 %rd10, %rd0;",
        "": "mov.u64 %rd11, s; cvta.shared.u64 %rd10, %rd11;",
        "shared": "",
    }[space]
    dot = f".{space}" if space else ""
    body = f"""
    .shared .align 16 .b8 s[16];
    {through}
    setp.eq.u32 %p1, %r0, 0;
    @%p1 {load} {register}6, [%rd0];
    @%p1 st.b{8 * size} {place}, {register}6;
    bar.warp.sync -1;
    mul.wide.u32 %rd13, %r0, {size};
    add.u64 %rd14, %rd1, %rd13; {load} {register}4, [%rd14];
    {get_third}
    atom{dot}.{op}.{type} {register}7, {place}, {register}4{third};
    add.u64 %rd14, %rd2, %rd13; st.global.b{8 * size} [%rd14], {register}7;
    bar.warp.sync -1;
    @%p1 ld.b{8 * size} {register}6, {place};
    @%p1 st.global.b{8 * size} [%rd0], {register}6;
    ret;
    """.replace("st.b", f"st{dot}.b").replace("ld.b", f"ld{dot}.b")
    memory, old = initial.copy(), np.zeros(32, dtype)
    arrays = [memory, operands, old] + ([compare] if compare is not None else [])
    run(body, *arrays)
    return memory[0], old


INTEGER = {
    "add": lambda old, b: old + b,
    "min": min,
    "max": max,
    "exch": lambda old, b: b,
    "and": lambda old, b: old & b,
    "or": lambda old, b: old | b,
    "xor": lambda old, b: old ^ b,
    "inc": lambda old, b: 0 if old >= b else old + 1,
    "dec": lambda old, b: b if old == 0 or old > b else old - 1,
}
FORMS = [
    *(("add", t) for t in ("u32", "s32", "u64")),
    *((op, t) for op in ("min", "max") for t in ("u32", "s32", "u64", "s64")),
    *((op, t) for op in ("and", "or", "xor", "exch") for t in ("b32", "b64")),
    ("inc", "u32"),
    ("dec", "u32"),
]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("op, type", FORMS)
def test_integers(op, type, space):
    bits, signed = int(type[1:]), type[0] == "s"
    dtype = np.dtype(f"{'i' if signed else 'u'}{bits // 8}")
    rng = np.random.default_rng(bits)
    info = np.iinfo(dtype)
    operands = rng.integers(info.min, info.max, 32, dtype=dtype, endpoint=True)
    operands[:4] = [0, info.max, info.min, 1]
    if op in ("inc", "dec"):
        operands = rng.integers(0, 3, 32).astype(dtype)
    initial = np.array([3], dtype)
    value, expected = 3, []
    for b in operands.tolist():
        expected.append(value)
        value = INTEGER[op](value, b)
        value = (value - info.min) % (1 << bits) + info.min if op == "add" else value
    got, old = apply(op, type, initial, operands, space=space)
    assert int(got) == value and old.tolist() == expected


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(
    "type, dtype", [("b32", np.uint32), ("b64", np.uint64), ("b16", np.uint16)]
)
def test_compare_and_swap(type, dtype, space):
    # A chain: thread i turns i into i + 1, but for one that compares with something else.
    compare = np.arange(32).astype(dtype)
    compare[20] = 99
    swap = (np.arange(32) + 1).astype(dtype)
    got, old = apply("cas", type, np.zeros(1, dtype), compare, swap, space)
    assert got == 20 and old.tolist() == list(range(20)) + [20] * 12


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("type, dtype", [("f32", np.float32), ("f64", np.float64)])
def test_floats_add_in_order(type, dtype, space):
    b = (np.random.default_rng(3).standard_normal(32) * 1e3).astype(dtype)
    b[7] = dtype(1e30)
    bits = np.dtype(f"u{dtype().itemsize}")
    value, expected = dtype(0.5), []
    for x in b:
        expected.append(value)
        value = dtype(value + x)
    got, old = apply("add", type, np.array([0.5], dtype).view(bits), b.view(bits), space=space)
    assert got == value.view(bits) and (old == np.array(expected).view(bits)).all()


def test_subnormals_are_flushed_in_global_memory_only():
    tiny = np.full(32, 1, np.uint32)  # the smallest subnormal
    assert apply("add", "f32", np.zeros(1, np.uint32), tiny, space="global")[0] == 0
    assert apply("add", "f32", np.zeros(1, np.uint32), tiny, space="shared")[0] == 32


@pytest.mark.parametrize("type, dtype", [("f16", torch.float16), ("bf16", torch.bfloat16)])
@pytest.mark.parametrize("pair", [False, True])
def test_sixteen_bit_floats_add(type, dtype, pair):
    lanes = 2 if pair else 1
    b = (torch.randn(32, lanes, generator=torch.Generator().manual_seed(0)) * 4).to(dtype)
    value, expected = torch.zeros(lanes, dtype=dtype), []
    for x in b:
        expected.append(value)
        value = value + x
    view = np.uint32 if pair else np.uint16
    as_bits = lambda t: t.view(torch.int16).numpy().view(view).reshape(-1)  # noqa: E731
    name = f"{type}x2" if pair else type
    got, old = apply("add.noftz", name, np.zeros(1, view), as_bits(b.contiguous()))
    assert got == as_bits(value)[0]
    assert (old == as_bits(torch.stack(expected))).all()


def test_vectors_add_element_by_element():
    y = np.zeros((32, 4), np.float32)
    x = np.random.default_rng(5).standard_normal((32, 4)).astype(np.float32)
    body = """
    mul.wide.u32 %rd2, %r0, 16; add.u64 %rd3, %rd0, %rd2; add.u64 %rd4, %rd1, %rd2;
    ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd3];
    red.global.add.v4.f32 [%rd4], {%f1, %f2, %f3, %f4};
    red.global.add.v2.f32 [%rd4+8], {%f1, %f2};
    ret;
    """
    run(body, x, y)
    x[:, 2:] += x[:, :2]
    assert (y == x).all()


@pytest.mark.parametrize("form", ["", ".relaxed", ".acquire", ".release", ".acq_rel"])
@pytest.mark.parametrize("scope", ["", ".cta", ".cluster", ".gpu", ".sys"])
def test_orders_and_scopes(form, scope):
    y = np.zeros(1, np.uint32)
    run(f"atom{form}{scope}.global.add.u32 %r1, [%rd0], 1; ret;", y, block=64, grid=1)
    assert y[0] == 64


@pytest.mark.parametrize(
    "line",
    ["atom.global.add.s64 %rd1, [%rd0], %rd2;", "atom.global.add.f16 %h1, [%rd0], %h2;",
     "red.global.cas.b32 [%rd0], %r1, %r2;", "atom.global.inc.s32 %r1, [%rd0], %r2;",
     "atom.global.min.f32 %r1, [%rd0], %r2;"],
)  # fmt: skip
def test_what_does_not_exist_is_refused(line):
    with pytest.raises(Unsupported):
        run(line + " ret;", np.zeros(32, np.uint64))
