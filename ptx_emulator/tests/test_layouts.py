"""Matrices in shared memory and in registers, as the emulator has them, against the tables."""

import itertools

import numpy as np
import pytest
import torch

from ptx_emulator import Module, TensorMap

from . import layouts

TYPES = {
    "bf16": (torch.bfloat16, 2),
    "f16": (torch.float16, 2),
    "e4m3": (torch.float8_e4m3fn, 1),
    "e5m2": (torch.float8_e5m2, 1),
    "s8": (torch.int8, 1),
    "u8": (torch.uint8, 1),
    "tf32": (torch.float32, 4),
}
START = (
    0x800  # of the first operand in the kernel's shared memory, which begins at a multiple of 1024
)


def kernel(body, *params, extra=""):
    """A module with the kernel `k`: its pointers come in %rd0 and up, shared memory is `bytes`."""
    declared = ", ".join(f".param .u64 {name}" for name in params)
    loads = "\n".join(
        f"ld.param.u64 %rd{i}, [{name}];\ncvta.to.global.u64 %rd{i}, %rd{i};"
        for i, name in enumerate(params)
    )
    loaded = Module(f""".version 9.0
.target sm_90a
.address_size 64
.extern .shared .align 1024 .b8 bytes[];
.visible .entry k({declared}{extra})
{{
.reg .pred %p<8>;
.reg .b32 %r<256>;
.reg .f32 %f<160>;
.reg .b64 %rd<32>;
{loads}
mov.u32 %r0, %tid.x;
mov.u32 %r1, bytes;
{body}
ret;
}}
""")
    assert not loaded.unsupported, loaded.unsupported
    return loaded


def copy_to_shared(size, threads):
    """Copies `size` bytes from %rd0 to the start of shared memory."""
    return f"""
shl.b32 %r3, %r0, 2;
COPY:
cvt.u64.u32 %rd30, %r3;
add.s64 %rd31, %rd0, %rd30;
ld.global.u32 %r4, [%rd31];
add.s32 %r5, %r1, %r3;
st.shared.u32 [%r5], %r4;
add.s32 %r3, %r3, {4 * threads};
setp.lt.u32 %p0, %r3, {size};
@%p0 bra COPY;
fence.proxy.async.shared::cta;
bar.sync 0;
"""


def random_matrix(rows, columns, kind, seed):
    low = 0 if kind == "u8" else -3
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, 4, (rows, columns), generator=generator)


def element_bytes(matrix, kind):
    """The matrix's elements as bytes, [rows, columns, bytes of an element]."""
    dtype, size = TYPES[kind]
    raw = matrix.to(dtype).contiguous().view(torch.uint8).numpy()
    return raw.reshape(*matrix.shape, size)


class Operand:
    """An operand of a wgmma and where it lies: a block of memory, offsets of the descriptor."""

    def __init__(self, size, kind, major, swizzle, advance=0, gap=1, leading_first=False):
        self.size, self.kind, self.major, self.swizzle = size, kind, major, swizzle
        item = TYPES[kind][1]
        self.k = 32 // item
        span = max(swizzle, 16)
        self.start = START + advance
        if major == "k":
            self.stride = 8 * span * gap
            self.leading = 0
            if swizzle == 0:
                # The two chunks of 8 rows side by side, or the second behind all rows of the first.
                self.stride, self.leading = (256, 128) if leading_first else (128, 16 * size)
            extent = self.stride * (size // 8) + self.leading * 2 + 128
        else:
            atom = 8 * span
            atoms = -(-size * item // span)
            self.leading, self.stride = (atom, atom * atoms) if leading_first else (2 * atom, atom)
            if swizzle == 0:
                self.leading, self.stride = self.stride, self.leading
            extent = 2 * atom * atoms
        self.layout = layouts.operand_layout(
            major, swizzle, self.leading, self.stride, item, size, self.k
        )
        self.end = self.start + extent

    def write(self, image, matrix):
        raw = element_bytes(matrix, self.kind)
        for mn, k in itertools.product(range(self.size), range(self.k)):
            at = layouts.operand_address(self.start, self.layout, mn, k, self.swizzle, raw.shape[2])
            image[at : at + raw.shape[2]] = raw[mn, k]

    def descriptor(self, base):
        """The matrix descriptor without the address, which is added to it."""
        mode = {0: 0, 128: 1, 64: 2, 32: 3}[self.swizzle]
        offset = (self.start + base) >> 4
        return offset | self.leading >> 4 << 16 | self.stride >> 4 << 32 | mode << 62


def run_wgmma(n, kind, a, b, other_kind=None):
    """D of one wgmma and what it should be; `a` is an Operand or None, for registers."""
    kind_b = other_kind or kind
    item = TYPES[kind][1]
    k = 32 // item
    integer = kind in ("s8", "u8")
    matrix_a, matrix_b = random_matrix(64, k, kind, 1), random_matrix(n, k, kind_b, 2)
    image = np.random.default_rng(0).integers(0, 256, 80 * 1024, dtype=np.uint8)
    base_b = 0
    if a:
        a.write(image[: a.end], matrix_a)
        base_b = -(-a.end // 1024) * 1024
    b.write(image[base_b:], matrix_b)
    used = -(-(base_b + b.end) // 1024) * 1024
    image = image[:used].copy()

    fragments = np.zeros((128, 4), np.uint32)
    raw = element_bytes(matrix_a, kind)
    flat = fragments.view(np.uint8).reshape(128, 16)
    for thread, i in itertools.product(range(128), range(16 // item)):
        row, column = layouts.wgmma_a_registers(thread, i, item)
        flat[thread, i * item : (i + 1) * item] = raw[row, column]

    count = n // 2
    registers = [f"%r{100 + i}" if integer else f"%f{i}" for i in range(count)]
    d_type, move = ("s32", "b32") if integer else ("f32", "f32")
    transposes = ""
    if item == 2:
        transposes = f", {int(bool(a) and a.major == 'mn')}" if a else ""
        transposes += f", {int(b.major == 'mn')}"
    scales = "" if integer else ", 1, 1"
    operand_a = "{%r10, %r11, %r12, %r13}" if a is None else "%rd10"
    suffix_b = kind_b
    code = f"""
{copy_to_shared(used, 128)}
shr.u32 %r6, %r1, 4;
cvt.u64.u32 %rd5, %r6;
add.s64 %rd10, %rd5, {a.descriptor(0) if a else 0};
add.s64 %rd11, %rd5, {b.descriptor(base_b)};
mul.wide.u32 %rd6, %r0, 16;
add.s64 %rd6, %rd2, %rd6;
ld.global.v4.u32 {{%r10, %r11, %r12, %r13}}, [%rd6];
{"".join(f"mov.{move} {r}, {'0' if integer else '0f7fc00000'};" for r in registers)}
setp.ne.u32 %p1, %r0, %r0;
wgmma.fence.sync.aligned;
wgmma.mma_async.sync.aligned.m64n{n}k{k}.{d_type}.{kind}.{suffix_b}
  {{{", ".join(registers)}}}, {operand_a}, %rd11, %p1{scales}{transposes};
wgmma.commit_group.sync.aligned;
wgmma.wait_group.sync.aligned 0;
mul.wide.u32 %rd7, %r0, {4 * count};
add.s64 %rd7, %rd1, %rd7;
{"".join(f"st.global.{move} [%rd7+{4 * i}], {r};" for i, r in enumerate(registers))}
"""
    out = np.zeros((128, count), np.int32 if integer else np.float32)
    kernel(code, "image", "out", "fragments").launch(
        "k", 1, 128, [image, out, fragments], shared=used
    )
    actual = np.full((64, n), np.nan)
    for thread, i in itertools.product(range(128), range(count)):
        actual[layouts.wgmma_accumulator(thread, i)] = out[thread, i]
    return actual, (matrix_a @ matrix_b.T).numpy()


def check_wgmma(*args, **options):
    actual, expected = run_wgmma(*args, **options)
    np.testing.assert_array_equal(actual, expected)


WIDE = ["bf16", "f16"]
NARROW = ["e4m3", "e5m2", "s8", "u8", "tf32"]


@pytest.mark.parametrize(
    "swizzle_a, swizzle_b", list(itertools.product(layouts.SWIZZLES, repeat=2))
)
@pytest.mark.parametrize("major_a, major_b", list(itertools.product(["k", "mn"], repeat=2)))
def test_wgmma_operands(major_a, major_b, swizzle_a, swizzle_b):
    a = Operand(64, "bf16", major_a, swizzle_a)
    b = Operand(64, "bf16", major_b, swizzle_b)
    check_wgmma(64, "bf16", a, b)


@pytest.mark.parametrize("leading_first", [False, True])
@pytest.mark.parametrize("swizzle", layouts.SWIZZLES)
@pytest.mark.parametrize("major", ["k", "mn"])
@pytest.mark.parametrize("n", [8, 24, 128, 176, 256])
def test_wgmma_sizes(n, major, swizzle, leading_first):
    a = Operand(64, "f16", "k", 128, gap=2)
    check_wgmma(n, "f16", a, Operand(n, "f16", major, swizzle, leading_first=leading_first))


@pytest.mark.parametrize("advance", [32, 64, 96])
def test_wgmma_starts_within_a_row(advance):
    a = Operand(64, "bf16", "k", 128, advance)
    check_wgmma(32, "bf16", a, Operand(32, "bf16", "k", 128, 96 - advance))


@pytest.mark.parametrize("kind", NARROW)
@pytest.mark.parametrize("swizzle", layouts.SWIZZLES)
def test_wgmma_types(kind, swizzle):
    check_wgmma(64, kind, Operand(64, kind, "k", swizzle), Operand(64, kind, "k", swizzle))


@pytest.mark.parametrize("kind", WIDE + NARROW)
def test_wgmma_a_in_registers(kind):
    check_wgmma(96, kind, None, Operand(96, kind, "k", 128))


@pytest.mark.parametrize("kinds", [("e4m3", "e5m2"), ("e5m2", "e4m3"), ("s8", "u8"), ("u8", "s8")])
def test_wgmma_of_two_types(kinds):
    a, b = Operand(64, kinds[0], "k", 64), Operand(48, kinds[1], "k", 32)
    check_wgmma(48, kinds[0], a, b, kinds[1])


MMA = [
    # kind, k, registers of A and of B
    ("bf16", 16, 4, 2),
    ("bf16", 8, 2, 1),
    ("f16", 16, 4, 2),
    ("f16", 8, 2, 1),
    ("tf32", 8, 4, 2),
    ("tf32", 4, 2, 1),
    ("s8", 32, 4, 2),
    ("s8", 16, 2, 1),
    ("u8", 32, 4, 2),
    ("e4m3", 32, 4, 2),
    ("e5m2", 32, 4, 2),
]


@pytest.mark.parametrize("kind, k, a_count, b_count", MMA)
def test_mma_sync(kind, k, a_count, b_count):
    item = TYPES[kind][1]
    integer = kind in ("s8", "u8")
    a, b = random_matrix(16, k, kind, 1), random_matrix(8, k, kind, 2)
    c = torch.randint(-9, 9, (16, 8), generator=torch.Generator().manual_seed(3)).numpy()
    place_a = layouts.mma_a if a_count == 4 else layouts.mma_a_half
    place_b = layouts.mma_b if b_count == 2 else layouts.mma_b_half
    registers = np.zeros((32, 16), np.uint32)
    raw = registers.view(np.uint8).reshape(32, 64)
    bytes_a, bytes_b = element_bytes(a, kind), element_bytes(b, kind)
    c_bits = c.astype(np.int32 if integer else np.float32)
    for lane in range(32):
        for i in range(4 * a_count // item):
            raw[lane, i * item : (i + 1) * item] = bytes_a[place_a(lane, i, item)]
        for i in range(4 * b_count // item):
            row, column = place_b(lane, i, item)
            raw[lane, 16 + i * item : 16 + (i + 1) * item] = bytes_b[column, row]
        for i in range(4):
            at = layouts.mma_accumulator(lane, i)
            registers[lane, 8 + i] = c_bits[at].view(np.uint32)
    bank, move = ("%r1", "b32") if integer else ("%f", "f32")
    d = [f"{bank}{20 + i}" for i in range(4)]
    names_a = ", ".join(f"%r{30 + i}" for i in range(a_count))
    names_b = ", ".join(f"%r{40 + i}" for i in range(b_count))
    d_type = "s32" if integer else "f32"
    code = f"""
mul.wide.u32 %rd4, %r0, 64;
add.s64 %rd5, %rd0, %rd4;
ld.global.v4.b32 {{%r30, %r31, %r32, %r33}}, [%rd5];
ld.global.v2.b32 {{%r40, %r41}}, [%rd5+16];
ld.global.v4.{move} {{{", ".join(d)}}}, [%rd5+32];
mma.sync.aligned.m16n8k{k}.row.col.{d_type}.{kind}.{kind}.{d_type}
  {{{", ".join(d)}}}, {{{names_a}}}, {{{names_b}}}, {{{", ".join(d)}}};
mul.wide.u32 %rd6, %r0, 16;
add.s64 %rd6, %rd1, %rd6;
st.global.v4.{move} [%rd6], {{{", ".join(d)}}};
"""
    out = np.zeros((32, 4), c_bits.dtype)
    kernel(code, "registers", "out").launch("k", 1, 32, [registers, out])
    actual = np.full((16, 8), np.nan)
    for lane, i in itertools.product(range(32), range(4)):
        actual[layouts.mma_accumulator(lane, i)] = out[lane, i]
    np.testing.assert_array_equal(actual, (a @ b.T).numpy() + c)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix_and_stmatrix(count, transposed):
    # Rows of 8 elements of 2 bytes, row r of matrix i where a permutation put it.
    order = np.random.default_rng(count).permutation(32)[: 8 * count]
    elements = np.arange(32 * 8, dtype=np.uint16).reshape(32, 8)
    names = ", ".join(f"%r{20 + i}" for i in range(count))
    trans = ".trans" if transposed else ""
    code = f"""
{copy_to_shared(512, 32)}
mul.wide.u32 %rd5, %r0, 4;
add.s64 %rd6, %rd1, %rd5;
ld.global.u32 %r10, [%rd6];
shl.b32 %r10, %r10, 4;
add.s32 %r11, %r1, %r10;
ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{names}}}, [%r11];
mul.wide.u32 %rd7, %r0, {4 * count};
add.s64 %rd7, %rd2, %rd7;
{"".join(f"st.global.u32 [%rd7+{4 * i}], %r{20 + i};" for i in range(count))}
bar.sync 0;
add.s32 %r11, %r11, 1024;
stmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 [%r11], {{{names}}};
bar.sync 0;
setp.ge.u32 %p1, %r0, {8 * count};
@%p1 bra DONE;
ld.shared.v4.u32 {{%r30, %r31, %r32, %r33}}, [%r11];
mul.wide.u32 %rd8, %r0, 16;
add.s64 %rd8, %rd3, %rd8;
st.global.v4.u32 [%rd8], {{%r30, %r31, %r32, %r33}};
DONE:
"""
    # Lanes beyond those that name rows must name something, too.
    rows = np.resize(order, 32).astype(np.uint32)
    out = np.zeros((32, count, 2), np.uint16)
    stored = np.zeros((8 * count, 8), np.uint16)
    made = kernel(code, "elements", "rows", "out", "stored")
    made.launch("k", 1, 32, [elements, rows, out, stored], shared=2048)
    for lane, i, j in itertools.product(range(32), range(count), range(2)):
        row, column = layouts.ldmatrix(lane, j, transposed)
        assert out[lane, i, j] == elements[order[8 * i + row], column]
    np.testing.assert_array_equal(stored, elements[order])


@pytest.mark.parametrize("mode", ["eager", "late"])
@pytest.mark.parametrize("swizzle", layouts.SWIZZLES)
def test_tensor_copies(swizzle, mode):
    """Rows of a tile, 16 bytes to a chunk, lie where the figure of the swizzle has them."""
    rows, width = 24, (swizzle or 64) // 2
    tile = np.arange(rows * width, dtype=np.uint16).reshape(rows, width)
    size = tile.nbytes
    code = f"""
setp.ne.u32 %p1, %r0, 0;
@%p1 bra READY;
mbarrier.init.shared::cta.b64 [bytes+{size}], 1;
fence.mbarrier_init.release.cluster;
READY:
bar.sync 0;
@%p1 bra WAIT;
mov.u32 %r2, 0;
mbarrier.arrive.expect_tx.shared::cta.b64 _, [bytes+{size}], {size};
cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes
  [bytes], [map, {{%r2, %r2}}], [bytes+{size}];
WAIT:
mbarrier.try_wait.parity.shared::cta.b64 %p2, [bytes+{size}], 0;
@!%p2 bra WAIT;
shl.b32 %r3, %r0, 2;
NEXT:
add.s32 %r4, %r1, %r3;
ld.shared.u32 %r5, [%r4];
cvt.u64.u32 %rd5, %r3;
add.s64 %rd5, %rd0, %rd5;
st.global.u32 [%rd5], %r5;
add.s32 %r3, %r3, 128;
setp.lt.u32 %p3, %r3, {size};
@%p3 bra NEXT;
"""
    out = np.zeros(tile.shape, np.uint16)
    made = kernel(code, "out", extra=", .param .align 64 .b8 map[128]")
    tensor_map = TensorMap(tile, box=(width, rows), swizzle=swizzle)
    made.launch("k", 1, 32, [out, tensor_map], shared=size + 8, memory=[tile], mode=mode)
    expected = np.zeros(size, np.uint8)
    for offset in range(0, size, 16):
        at = layouts.swizzle_by_figure(offset, swizzle)
        expected[at : at + 16] = tile.reshape(-1).view(np.uint8)[offset : offset + 16]
    np.testing.assert_array_equal(out.reshape(-1).view(np.uint8), expected)
