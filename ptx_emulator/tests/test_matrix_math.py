"""wgmma and mma.sync: operand layouts, fragments and arithmetic.

The layouts here are written down from the figures of the PTX ISA ("Shared Memory Matrix Layout",
"Register Fragments"), where a swizzled tile is a picture of chunks permuted within each row,
not from the address arithmetic of the emulator.
"""

import ctypes

import numpy as np
import pytest
import torch

from . import hooks
from .hooks import ELEMENT_BYTES, LANES, encode, op_fields, pointer

SPANS = [16, 32, 64, 128]
MODES = {16: 0, 128: 1, 64: 2, 32: 3}


def descriptor(start, leading, stride, span, base_offset=0):
    return (
        start >> 4
        | (leading >> 4) << 16
        | (stride >> 4) << 32
        | base_offset << 49
        | MODES[span] << 62
    )


def permuted(chunk, line, span):
    """Where chunk `chunk` of a row lies, `line` rows of `span` bytes below the pattern's start."""
    return chunk ^ (line * span // 128 % (span // 16))


class Tile:
    """An operand of `rows` x `k` elements in shared memory, in one of the canonical layouts."""

    def __init__(self, rows, k, kind, span, mn_major, rng, integers=8):
        self.kind, self.span, self.mn_major = kind, span, mn_major
        size = ELEMENT_BYTES[kind]
        low = 0 if kind == "u8" else -integers
        self.values = rng.integers(low, integers + 1, (rows, k)).astype(np.float32)
        self.leading, self.stride = 0, 0
        if mn_major:
            wide = max(span, 16) // 2  # elements along the rows in one atom of wide x 8
            atoms = -(-rows // wide), k // 8
            # The order of the atoms is ours to choose; what steps along rows comes second.
            along_k, along_rows = 8 * span, atoms[1] * 8 * span
            self.bytes_needed = atoms[0] * along_rows
            self.leading, self.stride = (
                (along_k, along_rows) if span == 16 else (along_rows, along_k)
            )
        else:
            groups = rows // 8
            if span == 16:
                self.leading, self.stride = groups * 128 + 128, 128
                self.bytes_needed = self.leading * (k * size // 16)
            else:
                self.stride = 8 * span
                self.bytes_needed = groups * self.stride

    def place(self, row, k):
        """Byte offset of an element from the tile's start, which is aligned to the pattern."""
        size = ELEMENT_BYTES[self.kind]
        if self.mn_major:
            wide = max(self.span, 16) // 2
            atom = (self.leading if self.span > 16 else self.stride) * (row // wide)
            atom += (self.stride if self.span > 16 else self.leading) * (k // 8)
            chunk = permuted(row % wide // 8, k % 8, self.span)
            return atom + k % 8 * self.span + chunk * 16 + row % 8 * 2
        byte = k * size
        if self.span == 16:
            return row // 8 * self.stride + row % 8 * 16 + byte // 16 * self.leading + byte % 16
        chunk = permuted(byte // 16, row % 8, self.span)
        return row // 8 * self.stride + row % 8 * self.span + chunk * 16 + byte % 16

    def store(self, memory, start):
        size = ELEMENT_BYTES[self.kind]
        codes = encode(self.values, self.kind)
        for row in range(self.values.shape[0]):
            for k in range(self.values.shape[1]):
                at = start + self.place(row, k)
                memory[at : at + size] = codes[row, k]

    def descriptor(self, start, k_step=0):
        """Of the 32 bytes along k that are number k_step."""
        if self.mn_major:
            start += 2 * k_step * (self.stride if self.span > 16 else self.leading)
        elif self.span == 16:
            start += 2 * k_step * self.leading
        else:
            start += 32 * k_step
        return descriptor(start, self.leading, self.stride, self.span)


def accumulator_places(n):
    """(row, column) of [warp][register][lane], 32-bit accumulators."""
    warp, register, lane = np.indices((4, n // 2, LANES))
    row = warp * 16 + lane // 4 + 8 * (register % 4 // 2)
    column = register // 4 * 8 + lane % 4 * 2 + register % 2
    return row, column


def as_registers(matrix, kind):
    """[64, n] to registers of the accumulator."""
    row, column = accumulator_places(matrix.shape[1])
    flat = matrix[row, column]
    if kind == "f16":
        half = flat.astype(np.float16).view(np.uint16).astype(np.uint32)
        return np.ascontiguousarray(half[:, 0::2] | half[:, 1::2] << 16)
    return np.ascontiguousarray(flat.astype(np.int32 if kind == "s32" else np.float32)).view(
        np.uint32
    )


def from_registers(registers, n, kind):
    if kind == "f16":
        halves = np.stack([registers & 0xFFFF, registers >> 16], axis=2).astype(np.uint16)
        flat = halves.reshape(4, n // 2, LANES).view(np.float16)
    else:
        flat = registers.view(np.int32 if kind == "s32" else np.float32)
    out = np.zeros((64, n), flat.dtype)
    out[accumulator_places(n)] = flat
    return out


def wgmma(fields, a, b, memory, registers, a_mn=False, b_mn=False, a_registers=None):
    hooks.library().ptx_test_wgmma(
        pointer(fields),
        ctypes.c_uint64(a),
        ctypes.c_uint64(b),
        int(a_mn),
        int(b_mn),
        pointer(memory),
        pointer(a_registers),
        pointer(registers),
    )


A_START, B_START = 0x1000, 0x10000
LAYOUTS = [("bf16", s, mn) for s in SPANS for mn in (False, True)]
LAYOUTS += [(t, s, False) for t in ("e4m3", "e5m2", "s8", "u8", "tf32") for s in (16, 128)]
LAYOUTS += [("f16", 128, True), ("f16", 64, False)]


@pytest.mark.parametrize("kind,span,mn_major", LAYOUTS)
@pytest.mark.parametrize("n", [8, 24, 64, 256])
def test_shared_operands(kind, span, mn_major, n):
    """All k steps of a tile, both operands from shared memory, against the plain product."""
    rng = np.random.default_rng(n + span)
    size = ELEMENT_BYTES[kind]
    k_total = max(span, 64) // size if not mn_major else 32
    step = 32 // size
    memory = np.full(1 << 18, 0xFF, np.uint8)
    a = Tile(64, k_total, kind, span, mn_major, rng)
    b = Tile(n, k_total, kind, span, mn_major, rng)
    if a.span == 16 or mn_major:
        pass
    elif k_total * size > span:
        pytest.skip("one atom along k only")
    a.store(memory, A_START)
    b.store(memory, B_START)
    d_kind = "s32" if kind in ("s8", "u8") else "f32"
    start = rng.integers(-100, 100, (64, n))
    registers = as_registers(start, d_kind)
    fields = op_fields(d_kind, kind, kind, n, step)
    for k in range(k_total // step):
        wgmma(
            fields,
            a.descriptor(A_START, k),
            b.descriptor(B_START, k),
            memory,
            registers,
            mn_major,
            mn_major,
        )
    expected = start + a.values @ b.values.T
    np.testing.assert_array_equal(from_registers(registers, n, d_kind), expected)


@pytest.mark.parametrize(
    "a_kind,b_kind", [("e4m3", "e5m2"), ("e5m2", "e4m3"), ("s8", "u8"), ("u8", "s8")]
)
def test_mixed_types(a_kind, b_kind):
    rng = np.random.default_rng(3)
    memory = np.full(1 << 18, 0xFF, np.uint8)
    a = Tile(64, 32, a_kind, 32, False, rng, integers=4)
    b = Tile(48, 32, b_kind, 32, False, rng, integers=4)
    a.store(memory, A_START)
    b.store(memory, B_START)
    d_kind = "s32" if "8" in a_kind[1:2] else "f32"
    registers = as_registers(np.zeros((64, 48)), d_kind)
    fields = op_fields(d_kind, a_kind, b_kind, 48, 32)
    wgmma(fields, a.descriptor(A_START), b.descriptor(B_START), memory, registers)
    np.testing.assert_array_equal(from_registers(registers, 48, d_kind), a.values @ b.values.T)


def fragment_a(codes):
    """[64, k, size] bytes to [warp][4][lane] registers; PTX ISA, matrix A in registers: a register
    holds 4 / size neighbours along k, the next one the row 8 below, then the other half of k."""
    size = codes.shape[2]
    out = np.zeros((4, 4, LANES), np.uint32)
    for warp in range(4):
        for lane in range(LANES):
            group, member = lane >> 2, lane % 4
            for i in range(16 // size):
                register = i * size // 4
                within = i % (4 // size)
                row = group + (8 if register in (1, 3) else 0)
                k = member * (4 // size) + within + (16 // size if register >= 2 else 0)
                code = int.from_bytes(codes[16 * warp + row, k].tobytes(), "little")
                out[warp, register, lane] |= code << (8 * size * within)
    return out


@pytest.mark.parametrize("kind", list(ELEMENT_BYTES))
def test_a_from_registers(kind):
    rng = np.random.default_rng(5)
    size, n = ELEMENT_BYTES[kind], 40 if kind not in ("s8", "u8") else 48
    memory = np.full(1 << 18, 0xFF, np.uint8)
    a = Tile(64, 32 // size, kind, 32, False, rng)
    b = Tile(n, 32 // size, kind, 32, False, rng)
    b.store(memory, B_START)
    d_kind = "s32" if kind in ("s8", "u8") else "f32"
    registers = as_registers(np.ones((64, n)), d_kind)
    fields = op_fields(
        d_kind, kind, kind, n, 32 // size, negate=(1, 0) if d_kind == "f32" else (0, 0)
    )
    wgmma(
        fields,
        0,
        b.descriptor(B_START),
        memory,
        registers,
        a_registers=fragment_a(encode(a.values, kind)),
    )
    sign = -1 if d_kind == "f32" else 1
    np.testing.assert_array_equal(
        from_registers(registers, n, d_kind), 1 + sign * (a.values @ b.values.T)
    )


def run_one(kind, a_values, b_values, start, d_kind="f32", **options):
    n, k = b_values.shape
    rng = np.random.default_rng(0)
    memory = np.zeros(1 << 18, np.uint8)
    a, b = Tile(64, k, kind, 32, False, rng), Tile(n, k, kind, 32, False, rng)
    a.values, b.values = a_values, b_values
    a.store(memory, A_START)
    b.store(memory, B_START)
    registers = as_registers(start, d_kind)
    wgmma(
        op_fields(d_kind, kind, kind, n, k, **options),
        a.descriptor(A_START),
        b.descriptor(B_START),
        memory,
        registers,
    )
    return from_registers(registers, n, d_kind)


def test_scale_d_ignores_the_accumulator():
    a = np.ones((64, 16), np.float32)
    out = run_one("bf16", a, np.ones((8, 16), np.float32), np.full((64, 8), np.nan), accumulate=0)
    assert (out == 16).all()


def test_both_negations_cancel():
    rng = np.random.default_rng(1)
    a, b = (
        rng.integers(-4, 5, (64, 16)).astype(np.float32),
        rng.integers(-4, 5, (8, 16)).astype(np.float32),
    )
    zero = np.zeros((64, 8))
    assert (run_one("f16", a, b, zero, negate=(1, 1)) == a @ b.T).all()
    assert (run_one("f16", a, b, zero, negate=(0, 1)) == -(a @ b.T)).all()


def test_special_values():
    a = np.zeros((64, 16), np.float32)
    a[0, 3], a[1, 5], a[2, :2], a[3, 0] = np.inf, np.nan, (np.inf, -np.inf), np.inf
    b = np.ones((8, 16), np.float32)
    b[1, 0] = 0.0
    out = run_one("bf16", a, b, np.zeros((64, 8)))
    assert np.isposinf(out[0]).all() and np.isnan(out[1]).all() and np.isnan(out[2]).all()
    assert np.isposinf(out[3, 0]) and np.isnan(out[3, 1])  # inf * 0
    assert (out[np.isnan(out)].view(np.uint32) == 0x7FFFFFFF).all()
    assert (out[4:] == 0).all()


def test_subnormal_operands_count():
    tiny = 2.0**-133  # a bf16 subnormal
    a, b = np.full((64, 16), tiny, np.float32), np.full((8, 16), 2.0**100, np.float32)
    assert (run_one("bf16", a, b, np.zeros((64, 8))) == 16 * 2.0**-33).all()
    a = np.full((64, 32), 2.0**-9, np.float32)  # the least e4m3
    assert (run_one("e4m3", a, np.ones((8, 32), np.float32), np.zeros((64, 8))) == 2.0**-4).all()


def test_tf32_ignores_low_bits():
    a = np.full((64, 8), 1 + 2.0**-10 + 2.0**-11, np.float32)
    out = run_one("tf32", a, np.ones((8, 8), np.float32), np.zeros((64, 8)))
    assert (out == 8 * (1 + 2.0**-10)).all()


def test_f16_accumulator():
    rng = np.random.default_rng(2)
    a = rng.integers(-9, 9, (64, 16)).astype(np.float32)
    b = rng.integers(-9, 9, (16, 16)).astype(np.float32)
    start = rng.integers(-9, 9, (64, 16))
    assert (run_one("f16", a, b, start, "f16") == start + a @ b.T).all()
    big = np.full((64, 16), 200.0, np.float32)
    assert np.isposinf(
        run_one("f16", big, np.full((8, 16), 200.0, np.float32), np.zeros((64, 8)), "f16")
    ).all()


def test_integers_wrap_or_saturate():
    a, b = np.full((64, 32), -128, np.float32), np.full((8, 32), -128, np.float32)
    start = np.full((64, 8), 2**31 - 5)
    total = 2**31 - 5 + 32 * 128 * 128
    assert (run_one("s8", a, b, start, "s32") == total - 2**32).all()
    assert (run_one("s8", a, b, start, "s32", saturate=1) == 2**31 - 1).all()
    assert (run_one("s8", a, -b - 1, -start, "s32", saturate=1) == -(2**31)).all()
    a, b = np.full((64, 32), 255, np.float32), np.full((8, 32), 255, np.float32)
    assert (run_one("u8", a, b, np.zeros((64, 8)), "s32") == 32 * 255 * 255).all()


def coarse_reference(a, b, c, least):
    """MMA-Sim (arXiv 2511.10909), Hopper fp8 wgmma: terms truncated to 13 fraction bits below the
    greatest exponent, and the sum to a significand of 13 fraction bits."""
    from fractions import Fraction
    from math import frexp

    def exponent(x, lowest):
        return max(frexp(x)[1] - 1, lowest)

    def truncate(x):
        return int(abs(x)) * (1 if x >= 0 else -1)

    exponents = [
        exponent(x, least) + exponent(y, least) for x, y in zip(a, b, strict=False) if x and y
    ]
    top = max(exponents + ([exponent(c, -126)] if c else [-126]))
    unit = Fraction(2) ** (13 - top)
    total = sum(
        truncate(Fraction(float(x)) * Fraction(float(y)) * unit) for x, y in zip(a, b, strict=False)
    )
    total += truncate(Fraction(float(c)) * unit)
    bits = abs(total).bit_length()
    if bits > 14:
        total = truncate(Fraction(total, 2 ** (bits - 14))) * 2 ** (bits - 14)
    return float(total / unit)


@pytest.mark.parametrize("kind,least", [("e4m3", -6), ("e5m2", -14)])
def test_coarse_fp8(kind, least):
    rng = np.random.default_rng(4)
    scale = 2.0 ** rng.integers(-8, 6, (64, 32))
    a = (rng.standard_normal((64, 32)) * scale).astype(np.float32)
    b = rng.standard_normal((8, 32)).astype(np.float32)
    b[0, :] = 0
    a, b = (torch.from_numpy(x).to(hooks.TORCH_TYPES[kind]).float().numpy() for x in (a, b))
    start = (rng.standard_normal((64, 8)) * 100).astype(np.float32)
    out = run_one(kind, a, b, start, coarse=1)
    for row in range(64):
        for column in range(8):
            assert out[row, column] == np.float32(
                coarse_reference(a[row], b[column], float(start[row, column]), least)
            )
    fine = run_one(kind, a, b, start)
    assert (out != fine).mean() > 0.5
    assert np.abs(out - fine).max() <= np.abs(fine).max() * 33 * 2.0**-13


def test_coarse_fp8_keeps_infinities():
    a = np.zeros((64, 32), np.float32)
    a[0, 0], a[1, 1] = np.inf, np.nan
    out = run_one("e5m2", a, np.ones((8, 32), np.float32), np.zeros((64, 8)), coarse=1)
    assert np.isposinf(out[0]).all() and np.isnan(out[1]).all() and (out[2:] == 0).all()


def test_list_of_n():
    lib = hooks.library()
    bf16, s8 = lib.ptx_test_type(b"bf16"), lib.ptx_test_type(b"s8")
    for n in range(-8, 300):
        assert bool(lib.ptx_test_wgmma_has_n(n, bf16)) == (n in range(8, 257, 8))
        integer = {8, 16, 24, 32, *range(48, 257, 16)}
        assert bool(lib.ptx_test_wgmma_has_n(n, s8)) == (n in integer)


def test_descriptor_with_a_base_offset_is_refused():
    addresses = np.zeros(64, np.uint32)
    check = hooks.library().ptx_test_descriptor
    for offset in range(8):
        bits = ctypes.c_uint64(descriptor(0x400, 16, 1024, 128, offset))
        assert bool(hooks.message_of(check, bits, 8, 0, pointer(addresses))) == (offset > 0)


@pytest.mark.slow  # a busy machine fails it
def test_speed():
    """On one core; the bar of the whole emulator is 100,000 a second with all checks."""
    memory = np.zeros(1 << 18, np.uint8)
    d = np.zeros((4, 32, LANES), np.uint32)
    operand = ctypes.c_uint64(descriptor(0x1000, 16, 1024, 128))
    rate = hooks.library().ptx_test_wgmma_rate(
        pointer(op_fields("f32", "bf16", "bf16", 64, 16)),
        operand,
        operand,
        pointer(memory),
        pointer(d),
        20000,
    )
    print(f"{rate:.0f} m64n64k16 per second")
    assert rate > 60_000  # 300,000 on an idle core


# mma.sync: (shape k, type) -> registers of A and B follow from 32-bit packing.
MMA = [("bf16", 16), ("bf16", 8), ("f16", 16), ("f16", 8), ("tf32", 8), ("tf32", 4)]
MMA += [(t, k) for t in ("s8", "u8") for k in (16, 32)] + [("e4m3", 32), ("e5m2", 32), ("e4m3", 16)]


def mma_fragments(kind, k, a, b):
    """PTX ISA, fragments of mma.m16n8k*: groupID = lane >> 2, threadID_in_group = lane % 4."""
    size = ELEMENT_BYTES[kind]
    each = 4 // size
    codes_a, codes_b = encode(a, kind), encode(b, kind)
    ra, rb = np.zeros((4, LANES), np.uint32), np.zeros((4, LANES), np.uint32)
    for lane in range(LANES):
        group, member = lane >> 2, lane % 4
        for i in range(16 * k // LANES):
            register = i // each
            row = group + 8 * (register & 1)
            col = member * each + i % each + (register >> 1) * 4 * each
            code = int.from_bytes(codes_a[row, col].tobytes(), "little")
            ra[register, lane] |= code << (8 * size * (i % each))
        for i in range(8 * k // LANES):
            register = i // each
            row = member * each + i % each + register * 4 * each
            code = int.from_bytes(codes_b[row, group].tobytes(), "little")
            rb[register, lane] |= code << (8 * size * (i % each))
    return ra, rb


@pytest.mark.parametrize("kind,k", MMA)
@pytest.mark.parametrize("accumulator", ["wide", "f16"])
def test_mma(kind, k, accumulator):
    if accumulator == "f16" and kind not in ("f16", "e4m3", "e5m2"):
        pytest.skip("no f16 accumulator")
    rng = np.random.default_rng(k)
    low = 0 if kind == "u8" else -8
    a = rng.integers(low, 9, (16, k)).astype(np.float32)
    b = rng.integers(low, 9, (k, 8)).astype(np.float32)
    c = rng.integers(-50, 50, (16, 8))
    d_kind = accumulator if accumulator == "f16" else "s32" if kind in ("s8", "u8") else "f32"
    full = np.zeros((64, 8), c.dtype)
    full[:16] = c
    rc = np.zeros((4, LANES), np.uint32)
    registers = as_registers(full, d_kind)[0]
    rc[: len(registers)] = registers
    ra, rb = mma_fragments(kind, k, a, b)
    rd = np.full((4, LANES), 0xDEAD, np.uint32)
    before = rc.copy()
    fields = op_fields(d_kind, kind, kind, 8, k)
    hooks.library().ptx_test_mma(
        pointer(fields), pointer(ra), pointer(rb), pointer(rc), pointer(rd)
    )
    out = np.zeros((4, len(registers), LANES), np.uint32)
    out[0] = rd[: len(registers)]
    np.testing.assert_array_equal(from_registers(out, 8, d_kind)[:16], c + a @ b)
    assert (rc == before).all() and (rd[len(registers) :] == 0xDEAD).all()


def test_mma_f64():
    rng = np.random.default_rng(6)
    a, b, c = rng.standard_normal((8, 4)), rng.standard_normal((4, 8)), rng.standard_normal((8, 8))
    lane = np.arange(LANES)
    ra, rb = (
        np.ascontiguousarray(a[lane // 4, lane % 4]),
        np.ascontiguousarray(b[lane % 4, lane // 4]),
    )
    columns = lane % 4 * 2 + np.arange(2)[:, None]
    rc = np.ascontiguousarray(c[lane // 4, columns])
    rd = np.zeros((2, LANES))
    hooks.library().ptx_test_mma_f64(pointer(ra), pointer(rb), pointer(rc), pointer(rd))
    np.testing.assert_allclose(rd, (a @ b + c)[lane // 4, columns], rtol=1e-14)


@pytest.mark.parametrize("transposed", [False, True])
def test_matrix_moves(transposed):
    """ldmatrix: lane l holds elements 2 * (l % 4) and the next of row l / 4; .trans: a column."""
    rng = np.random.default_rng(7)
    rows = rng.integers(0, 65536, (8, 8)).astype(np.uint16)
    lanes = np.zeros(LANES, np.uint32)
    lib = hooks.library()
    lib.ptx_test_rows_to_lanes(pointer(rows), int(transposed), pointer(lanes))
    seen = rows.T if transposed else rows
    expected = seen.reshape(LANES, 2).astype(np.uint32)
    np.testing.assert_array_equal(lanes, expected[:, 0] | expected[:, 1] << 16)
    back = np.zeros_like(rows)
    lib.ptx_test_lanes_to_rows(pointer(lanes), int(transposed), pointer(back))
    np.testing.assert_array_equal(back, rows)
