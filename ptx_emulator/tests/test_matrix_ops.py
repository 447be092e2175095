"""mma.sync, ldmatrix, stmatrix and movmatrix on the machine."""

import numpy as np
import pytest

import ptx_emulator

from .ptx_text import MODES, aligned, module, pointer
from .test_matrix_math import mma_fragments

SHARED = ".shared .align 128 .b8 box[1024];\n"
PLACES = (
    pointer("%rd1", "in")
    + pointer("%rd2", "out")
    + """mov.u32 %r1, %tid.x;
mov.u32 %r3, box;
"""
)


def per_lane(register, base, scale):
    return f"mul.wide.u32 %rd12, %r1, {scale};\nadd.s64 {register}, {base}, %rd12;\n"


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_ldmatrix_and_stmatrix(count, transposed):
    """Rows come from where the lanes 8 * i .. 8 * i + 7 say; here in reverse order."""
    rng = np.random.default_rng(count)
    given = aligned((4, 8, 8), np.uint16)
    given[...] = rng.integers(0, 65536, given.shape)
    out = aligned((2, 512), np.uint8)
    trans = ".trans" if transposed else ""
    names = ", ".join(f"%r{10 + i}" for i in range(count))
    body = (
        PLACES
        + per_lane("%rd10", "%rd1", 16)
        + per_lane("%rd11", "%rd2", 4)
        + f"""ld.global.v4.u32 {{%r4, %r5, %r6, %r7}}, [%rd10];
shl.b32 %r2, %r1, 4;
add.u32 %r2, %r2, %r3;
st.shared.v4.u32 [%r2], {{%r4, %r5, %r6, %r7}};
bar.warp.sync 0xffffffff;
xor.b32 %r8, %r1, 7;
shl.b32 %r8, %r8, 4;
add.u32 %r8, %r8, %r3;
ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{names}}}, [%r8];
"""
        + "".join(f"st.global.u32 [%rd11+{128 * i}], %r{10 + i};\n" for i in range(count))
        + f"""bar.warp.sync 0xffffffff;
add.u32 %r8, %r8, 512;
stmatrix.sync.aligned.m8n8.x{count}{trans}.shared::cta.b16 [%r8], {{{names}}};
bar.warp.sync 0xffffffff;
setp.ge.u32 %p1, %r1, {8 * count};
@%p1 bra END;
ld.shared.v4.u32 {{%r4, %r5, %r6, %r7}}, [%r2+512];
"""
        + per_lane("%rd13", "%rd2", 16)
        + "st.global.v4.u32 [%rd13+512], {%r4, %r5, %r6, %r7};\nEND:\n"
    )
    module(body, "u64 in, u64 out", SHARED).launch("k", 1, 32, [given, out])
    reversed_rows = given[:count, ::-1]
    seen = reversed_rows.transpose(0, 2, 1) if transposed else reversed_rows
    pairs = np.ascontiguousarray(seen).reshape(count, 32, 2).astype(np.uint32)
    lanes = pairs[..., 0] | pairs[..., 1] << 16
    np.testing.assert_array_equal(out[0].view(np.uint32).reshape(4, 32)[:count], lanes)
    np.testing.assert_array_equal(out[1].view(np.uint16).reshape(4, 8, 8)[:count], given[:count])


def test_movmatrix():
    given = aligned((8, 8), np.uint16)
    given[...] = np.arange(64).reshape(8, 8)
    out = aligned((8, 8), np.uint16)
    body = (
        PLACES
        + per_lane("%rd10", "%rd1", 4)
        + per_lane("%rd11", "%rd2", 4)
        + """ld.global.u32 %r4, [%rd10];
movmatrix.sync.aligned.m8n8.trans.b16 %r5, %r4;
st.global.u32 [%rd11], %r5;
"""
    )
    module(body, "u64 in, u64 out", SHARED).launch("k", 1, 32, [given, out])
    np.testing.assert_array_equal(out, given.T)


@pytest.mark.parametrize("text", ["m16n16.x1.trans.shared.b8", "m8n16.x1.shared.b8x16.b6x16_p32"])
def test_matrix_loads_of_other_architectures(text):
    with pytest.raises(AssertionError):
        module(f"ldmatrix.sync.aligned.{text} {{%r1, %r2}}, [%r3];")


def test_rows_must_be_aligned():
    body = """mov.u32 %r3, box;
add.u32 %r3, %r3, 8;
ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%r3];
"""
    with pytest.raises(ptx_emulator.MemoryFault, match="multiple of 16"):
        module(body, "", SHARED).launch("k", 1, 32, [])


SHAPES = [
    ("m16n8k16", "f32", "bf16", 16),
    ("m16n8k8", "f32", "bf16", 8),
    ("m16n8k16", "f32", "f16", 16),
    ("m16n8k8", "f32", "f16", 8),
    ("m16n8k8", "f32", "tf32", 8),
    ("m16n8k4", "f32", "tf32", 4),
    ("m16n8k32", "s32", "s8", 32),
    ("m16n8k16", "s32", "u8", 16),
    ("m16n8k32", "f32", "e4m3", 32),
    ("m16n8k32", "f32", "e5m2", 32),
]


@pytest.mark.parametrize("shape,d,kind,k", SHAPES)
def test_mma(shape, d, kind, k):
    rng = np.random.default_rng(k)
    low = 0 if kind == "u8" else -8
    a = rng.integers(low, 9, (16, k)).astype(np.float32)
    b = rng.integers(low, 9, (k, 8)).astype(np.float32)
    ra, rb = mma_fragments(kind, k, a, b)
    given = aligned((8, 32), np.uint32)
    given[:4], given[4:] = ra, rb
    out = aligned((4, 32), np.uint32)
    a_count = k * {"bf16": 2, "f16": 2, "tf32": 4}.get(kind, 1) // 8
    prefix = "%r" if d == "s32" else "%f"
    one = "5" if d == "s32" else "0f40A00000"
    body = PLACES + per_lane("%rd10", "%rd1", 4) + per_lane("%rd11", "%rd2", 4)
    for i in range(4):
        body += f"ld.global.u32 %r{10 + i}, [%rd10+{128 * i}];\n"
        body += f"ld.global.u32 %r{20 + i}, [%rd10+{128 * (4 + i)}];\n"
        body += f"mov.{d} {prefix}{30 + i}, {one};\n"
    ra_names = ", ".join(f"%r{10 + i}" for i in range(a_count))
    rb_names = ", ".join(f"%r{20 + i}" for i in range(a_count // 2))
    rd_names = ", ".join(f"{prefix}{30 + i}" for i in range(4))
    body += f"mma.sync.aligned.{shape}.row.col.{d}.{kind}.{kind}.{d} "
    body += ", ".join(f"{{{names}}}" for names in (rd_names, ra_names, rb_names, rd_names)) + ";\n"
    for i in range(4):
        body += f"st.global.{d} [%rd11+{128 * i}], {prefix}{30 + i};\n"
    module(body, "u64 in, u64 out", SHARED).launch("k", 1, 32, [given, out])
    lane = np.arange(32)
    result = np.zeros((16, 8))
    for i in range(4):
        values = out[i].view(np.int32 if d == "s32" else np.float32)
        result[lane // 4 + 8 * (i // 2), 2 * (lane % 4) + i % 2] = values
    np.testing.assert_array_equal(result, a @ b + 5)


@pytest.mark.parametrize(
    "text,a,b",
    [
        ("m16n8k64.row.col.s32.s4.s4.s32", 4, 2),
        ("m16n8k32.row.col.s32.s4.s4.s32", 2, 1),
        ("m8n8k4.row.col.f32.f16.f16.f32", 2, 2),
        ("m16n8k16.row.row.f32.f16.f16.f32", 4, 2),
        ("m16n8k256.row.col.s32.b1.b1.s32.xor.popc", 4, 2),
        ("m16n8k16.row.col.bf16.bf16.bf16.bf16", 4, 2),
    ],
)
def test_refused_at_load(text, a, b):
    names = [", ".join(f"%r{10 * j + i}" for i in range(n)) for j, n in enumerate((4, a, b, 4))]
    with pytest.raises(AssertionError):
        module(f"mma.sync.aligned.{text} " + ", ".join(f"{{{n}}}" for n in names) + ";")


@pytest.mark.parametrize("mode,seed", MODES)
def test_missing_warp_barrier(mode, seed):
    """ldmatrix reads what other lanes stored."""
    body = (
        PLACES
        + """shl.b32 %r2, %r1, 4;
add.u32 %r2, %r2, %r3;
st.shared.v4.u32 [%r2], {%r1, %r1, %r1, %r1};
ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r4, %r5, %r6, %r7}, [%r2];
"""
    )
    args = [aligned(512, np.uint8), aligned(512, np.uint8)]
    with pytest.raises(ptx_emulator.Race):
        module(body, "u64 in, u64 out", SHARED).launch("k", 1, 32, args, mode=mode, seed=seed)
