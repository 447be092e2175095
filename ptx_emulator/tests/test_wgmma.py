"""wgmma on the machine: results in every schedule, and the rules of its asynchrony."""

import time

import numpy as np
import pytest

import ptx_emulator

from .hooks import ELEMENT_BYTES, encode
from .ptx_text import MODES, aligned, module, only_warp, pointer
from .test_matrix_math import Tile, as_registers, descriptor, fragment_a, from_registers

B_AT = 0x4000
BYTES = 0x8000
SHARED = f".shared .align 1024 .b8 box[{BYTES}];\n.shared .align 8 .b64 bar[2];\n"
# The window starts 0x400 above zero, and so does the box.
BOX = 0x400

FILL = f"""mov.u32 %r1, %tid.x;
shl.b32 %r2, %r1, 4;
mov.u32 %r3, box;
F: add.u32 %r4, %r2, %r3;
cvt.u64.u32 %rd12, %r2;
add.s64 %rd11, %rd1, %rd12;
ld.global.v4.u32 {{%r5, %r6, %r7, %r8}}, [%rd11];
st.shared.v4.u32 [%r4], {{%r5, %r6, %r7, %r8}};
add.u32 %r2, %r2, 2048;
setp.lt.u32 %p1, %r2, {BYTES};
@%p1 bra F;
"""
PUBLISH = "fence.proxy.async.shared::cta;\nbar.sync 0;\n"
FENCE = "wgmma.fence.sync.aligned;\n"
COMMIT = "wgmma.commit_group.sync.aligned;\n"
WAIT = "wgmma.wait_group.sync.aligned 0;\n"


def registers(n, prefix="%f", first=100):
    return [f"{prefix}{first + i}" for i in range(n)]


def each_register(n, text):
    """text with {r}, {i} and {offset} for each register of the accumulator."""
    return "".join(
        text.format(r=r, i=i, offset=512 * i) + "\n" for i, r in enumerate(registers(n // 2))
    )


def multiply(n, kind, a, b, scale="%p10", more="1, 1, 0, 0", d="f32", prefix="%f", k=None):
    k = k or 32 // ELEMENT_BYTES[kind]
    count = n // 4 if d == "f16" else n // 2
    accumulator = ", ".join(registers(count, prefix))
    more = f", {more}" if more else ""
    return (
        f"wgmma.mma_async.sync.aligned.m64n{n}k{k}.{d}.{kind}.{kind} "
        f"{{{accumulator}}}, {a}, {b}, {scale}{more};\n"
    )


def dump(count, kind="f32", prefix="%f"):
    text = "mul.wide.u32 %rd12, %r1, 4;\nadd.s64 %rd11, %rd2, %rd12;\n"
    for i, r in enumerate(registers(count, prefix)):
        text += f"st.global.{kind} [%rd11+{512 * i}], {r};\n"
    return text


class Problem:
    """64 x n from two tiles of 128 bytes along k, in steps of 32."""

    def __init__(self, n=64, kind="bf16", seed=0):
        rng = np.random.default_rng(seed)
        self.n, self.kind, self.k = n, kind, 128 // ELEMENT_BYTES[kind]
        self.a = Tile(64, self.k, kind, 128, False, rng)
        self.b = Tile(n, self.k, kind, 128, False, rng)
        self.memory = aligned(BYTES, np.uint8)
        self.a.store(self.memory, 0)
        self.b.store(self.memory, B_AT)
        self.d_kind = "s32" if kind in ("s8", "u8") else "f32"
        self.prefix = "%r" if self.d_kind == "s32" else "%f"
        self.more = {2: "1, 1, 0, 0", 4: "1, 1", 1: "" if self.d_kind == "s32" else "1, 1"}[
            ELEMENT_BYTES[kind]
        ]

    def steps(self, first=0, last=4, scale_first="%p10"):
        text = ""
        for i in range(first, last):
            a = self.a.descriptor(BOX, i)
            b = self.b.descriptor(BOX + B_AT, i)
            text += f"mov.u64 %rd30, {a};\nmov.u64 %rd31, {b};\n"
            scale = scale_first if i == first else "%p11"
            text += multiply(
                self.n, self.kind, "%rd30", "%rd31", scale, self.more, self.d_kind, self.prefix
            )
        return text

    def zero(self):
        zero = "0f00000000" if self.prefix == "%f" else "0"
        kind = "f32" if self.prefix == "%f" else "u32"
        return "".join(f"mov.{kind} {r}, {zero};\n" for r in registers(self.n // 2, self.prefix))

    def text(self, middle, publish=PUBLISH, after=None):
        return (
            pointer("%rd1", "in")
            + pointer("%rd2", "out")
            + FILL
            + publish
            + "setp.ne.u32 %p10, %r3, %r3;\nsetp.eq.u32 %p11, %r3, %r3;\n"
            + middle
            + (dump(self.n // 2, self.d_kind, self.prefix) if after is None else after)
        )

    def run(self, middle, mode="eager", seed=0, block=128, **options):
        launch_options = {k: options.pop(k) for k in ("coarse_fp8",) if k in options}
        out = np.zeros((self.n // 2, 128), np.uint32)
        loaded = module(self.text(middle, **options), "u64 in, u64 out", SHARED)
        loaded.launch("k", 1, block, [self.memory, out], mode=mode, seed=seed, **launch_options)
        flat = np.ascontiguousarray(out.reshape(self.n // 2, 4, 32).transpose(1, 0, 2))
        return from_registers(flat, self.n, self.d_kind)

    @property
    def product(self):
        return self.a.values @ self.b.values.T


@pytest.mark.parametrize("mode,seed", MODES)
@pytest.mark.parametrize("kind", ["bf16", "f16", "tf32", "e4m3", "e5m2", "s8", "u8"])
def test_product(mode, seed, kind):
    p = Problem(48, kind)
    out = p.run(FENCE + p.steps() + COMMIT + WAIT, mode, seed)
    np.testing.assert_array_equal(out, p.product)


@pytest.mark.parametrize("mode,seed", MODES)
def test_groups_are_waited_for_in_order(mode, seed):
    """Two groups on one accumulator, waited for one by one, then used and multiplied again."""
    p = Problem(64)
    middle = (
        FENCE
        + p.steps(0, 2)
        + COMMIT
        + p.steps(2, 4, "%p11")
        + COMMIT
        + "wgmma.wait_group.sync.aligned 1;\n"
        + WAIT
        + each_register(64, "add.f32 {r}, {r}, 0f3F800000;")
        + FENCE
        + p.steps(0, 4, "%p11")
        + COMMIT
        + WAIT
    )
    np.testing.assert_array_equal(p.run(middle, mode, seed), 2 * p.product + 1)


@pytest.mark.parametrize("mode,seed", MODES)
def test_a_in_registers(mode, seed):
    p = Problem(64)
    fragments = [fragment_a(encode(p.a.values[:, 16 * i : 16 * i + 16], "bf16")) for i in range(4)]
    p.memory[: 4 * 4 * 4 * 32 * 4] = np.stack(fragments).astype(np.uint32).view(np.uint8).ravel()
    middle = """and.b32 %r20, %r1, 31;
shr.u32 %r21, %r1, 5;
shl.b32 %r21, %r21, 9;
shl.b32 %r20, %r20, 2;
add.u32 %r20, %r20, %r21;
add.u32 %r20, %r20, %r3;
"""
    for i in range(4):
        for g in range(4):
            middle += f"ld.shared.u32 %r{30 + 4 * i + g}, [%r20+{2048 * i + 128 * g}];\n"
    middle += FENCE
    for i in range(4):
        a = "{" + ", ".join(f"%r{30 + 4 * i + g}" for g in range(4)) + "}"
        middle += f"mov.u64 %rd31, {p.b.descriptor(BOX + B_AT, i)};\n"
        middle += multiply(64, "bf16", a, "%rd31", "%p10" if i == 0 else "%p11", "1, 1, 0")
    out = p.run(middle + COMMIT + WAIT, mode, seed)
    np.testing.assert_array_equal(out, p.product)
    # The registers of A are read when the operation runs.
    spoiled = middle + COMMIT + "mov.u32 %r30, 0;\n" + WAIT
    with pytest.raises(ptx_emulator.Race, match="register"):
        p.run(spoiled, mode, seed)


@pytest.mark.parametrize("mode,seed", MODES)
def test_two_warpgroups(mode, seed):
    """Each has its own operations in flight."""
    p = Problem(32)
    text = p.text(FENCE + p.steps() + COMMIT + WAIT).replace("2048;\nsetp.lt", "4096;\nsetp.lt")
    text = text.replace("add.s64 %rd11, %rd2, %rd12;\nst", "add.s64 %rd11, %rd2, %rd12;\nst")
    out = np.zeros((16, 128), np.uint32)
    text = text.replace(
        "mul.wide.u32 %rd12, %r1, 4;", "and.b32 %r9, %r1, 127;\nmul.wide.u32 %rd12, %r9, 4;"
    )
    text = text.replace("st.global.f32", "@%p12 st.global.f32")
    text = text.replace(FENCE, "setp.ge.u32 %p12, %r1, 128;\n" + FENCE, 1)
    module(text, "u64 in, u64 out", SHARED).launch(
        "k", 1, 256, [p.memory, out], mode=mode, seed=seed
    )
    flat = np.ascontiguousarray(out.reshape(16, 4, 32).transpose(1, 0, 2))
    np.testing.assert_array_equal(from_registers(flat, 32, "f32"), p.product)


BUGS = {
    "no wgmma.fence": ("wgmma.fence", dict(drop=FENCE)),
    "no wait": ("waited for", dict(drop=WAIT)),
    "no commit": ("waited for", dict(drop=COMMIT)),
    "one group too many": ("waited for", dict(swap=(WAIT, "wgmma.wait_group.sync.aligned 1;\n"))),
    "no proxy fence": ("fence.proxy.async", dict(publish="bar.sync 0;\n")),
    "no barrier": (" ", dict(publish="fence.proxy.async.shared::cta;\n")),
    "overwritten in flight": (" ", dict(swap=(WAIT, "st.shared.u32 [box+64], 0;\n" + WAIT))),
    "accumulator written after the fence": (
        "register",
        dict(swap=(FENCE, FENCE + "mov.f32 %f103, 0f00000000;\n")),
    ),
    "accumulator read in flight": ("waited for", dict(swap=(WAIT, "mov.f32 %f1, %f103;\n" + WAIT))),
    "accumulator written in flight": (
        "waited for",
        dict(swap=(WAIT, "mov.f32 %f103, 0f00000000;\n" + WAIT)),
    ),
}


@pytest.mark.parametrize("mode,seed", MODES)
@pytest.mark.parametrize("name", BUGS)
def test_bugs(mode, seed, name):
    said, change = BUGS[name]
    p = Problem(64)
    middle = p.zero() + FENCE + p.steps(scale_first="%p11") + COMMIT + WAIT
    if "drop" in change:
        middle = middle.replace(change["drop"], "")
    if "swap" in change:
        middle = middle.replace(*change["swap"])
    with pytest.raises(ptx_emulator.Race, match=said):
        p.run(middle, mode, seed, publish=change.get("publish", PUBLISH))


@pytest.mark.parametrize("mode,seed", MODES)
def test_missing_waits_are_felt_without_race_detection(mode, seed):
    p = Problem(64)
    out = np.zeros((32, 128), np.uint32)
    loaded = module(p.text(FENCE + p.steps() + COMMIT), "u64 in, u64 out", SHARED)
    if mode == "late":  # and not even the end of the CTA waits
        with pytest.raises(ptx_emulator.MemoryFault, match="exited"):
            loaded.launch("k", 1, 128, [p.memory, out], mode=mode, seed=seed, races=False)
        assert np.isnan(out.view(np.float32)).all()


def test_warps_must_agree():
    p = Problem(64)
    middle = FENCE + p.steps() + COMMIT + WAIT
    moved = middle.replace("wgmma.mma", only_warp(2, "add.u64 %rd31, %rd31, 2;") + "wgmma.mma", 1)
    with pytest.raises(ptx_emulator.Race, match="differ"):
        p.run(moved)
    lanes = "mov.u32 %r20, %laneid;\ncvt.u64.u32 %rd32, %r20;\nadd.u64 %rd31, %rd31, %rd32;\n"
    with pytest.raises(ptx_emulator.Race, match="lanes"):
        p.run(middle.replace("wgmma.mma", lanes + "wgmma.mma", 1))


def test_operands_must_lie_in_shared_memory():
    p = Problem(64)
    far = descriptor(0x3F000, 16, 1024, 128)
    middle = (
        FENCE + f"mov.u64 %rd30, {far};\n" + multiply(64, "bf16", "%rd30", "%rd30") + COMMIT + WAIT
    )
    with pytest.raises(ptx_emulator.MemoryFault, match="outside"):
        p.run(middle)
    based = descriptor(BOX, 16, 1024, 128, base_offset=1)
    middle = (
        FENCE
        + f"mov.u64 %rd30, {based};\n"
        + multiply(64, "bf16", "%rd30", "%rd30")
        + COMMIT
        + WAIT
    )
    with pytest.raises(ptx_emulator.Unsupported, match="base offset"):
        p.run(middle)


@pytest.mark.parametrize(
    "text",
    [
        "m64n20k16.f32.bf16.bf16",
        "m64n8k32.f32.bf16.bf16",
        "m64n8k16.bf16.bf16.bf16",
        "m64n40k32.s32.s8.s8",
        "m64n8k256.s32.b1.b1.and.popc",
        "m64n8k16.f32.f16.bf16",
    ],
)
def test_refused_at_load(text):
    n = int(text.split("n")[1].split("k")[0])
    d = ", ".join(registers(n // 2, "%r" if "s32" in text else "%f"))
    more = "" if "s32" in text else ", 1, 1, 0, 0"
    body = f"wgmma.mma_async.sync.aligned.{text} {{{d}}}, %rd1, %rd2, %p1{more};"
    with pytest.raises(AssertionError):
        module(body)


def test_coarse_fp8_is_an_option():
    p = Problem(64, "e4m3")
    p.a.values[:] = 1
    p.b.values[:] = 1
    p.b.values[:, 0] = 448
    p.a.values[:, 0] = 448
    p.a.store(p.memory, 0)
    p.b.store(p.memory, B_AT)
    middle = FENCE + p.steps() + COMMIT + WAIT
    assert (p.run(middle) == 448 * 448 + 127).all()
    # 2^17 is the leading bit: what is below 2^(16 - 13) goes.
    assert (p.run(middle, coarse_fp8=True) == 448 * 448).all()


@pytest.mark.slow  # a busy machine fails it
def test_speed():
    """A loop bound by wgmma, all checks on: 100,000 m64n64k16 a second and more."""
    p = Problem(64)
    rounds = 500
    loop = (
        "mov.u32 %r50, 0;\nR:\n"
        + FENCE
        + p.steps(scale_first="%p11")
        + COMMIT
        + WAIT
        + f"add.u32 %r50, %r50, 1;\nsetp.lt.u32 %p12, %r50, {rounds};\n@%p12 bra R;\n"
    )
    loaded = module(p.text(p.zero() + loop), "u64 in, u64 out", SHARED)
    out = np.zeros((32, 128), np.uint32)
    best = 0
    for _ in range(5):
        start = time.process_time()
        loaded.launch("k", 1, 128, [p.memory, out], mode="random", seed=1)
        best = max(best, 4 * rounds / (time.process_time() - start))
    print(f"{best:.0f} m64n64k16 per second")
    flat = np.ascontiguousarray(out.reshape(32, 4, 32).transpose(1, 0, 2))
    np.testing.assert_array_equal(from_registers(flat, 64, "f32"), rounds * p.product)
    assert best > 100_000


def test_registers_of_tiles():
    matrix = np.arange(64 * 16).reshape(64, 16)
    assert (from_registers(as_registers(matrix, "s32"), 16, "s32") == matrix).all()
