"""cp.async.bulk.tensor against numpy, from tensor maps made on the host or in the kernel."""

import itertools

import numpy as np
import pytest

import ptx_emulator
from ptx_emulator import TensorMap

from .ptx_text import INIT_DONE, MODES, aligned, module, only_thread, pointer, wait

MAP = ".param .align 64 .b8 map[128]"
BYTES = 16384
SHARED = f".shared .align 1024 .b8 box[{BYTES}];\n.shared .align 8 .b64 bar[2];\n"
# The map's generic address in %rd20; box in %r3.
MAP_ADDRESS = "mov.b64 %rd21, map;\ncvta.param.u64 %rd20, %rd21;\nmov.u32 %r3, box;\n"
# All of the box to the output.
DUMP = f"""mov.u32 %r1, %tid.x;
shl.b32 %r1, %r1, 2;
D: add.u32 %r2, %r1, %r3;
ld.shared.u32 %r4, [%r2];
cvt.u64.u32 %rd12, %r1;
add.s64 %rd11, %rd1, %rd12;
st.global.u32 [%rd11], %r4;
add.u32 %r1, %r1, 128;
setp.lt.u32 %p1, %r1, {BYTES};
@%p1 bra D;
"""
CLEAR = f"""mov.u32 %r1, %tid.x;
shl.b32 %r1, %r1, 2;
C: add.u32 %r2, %r1, %r3;
st.shared.u32 [%r2], 0x55555555;
add.u32 %r1, %r1, 128;
setp.lt.u32 %p1, %r1, {BYTES};
@%p1 bra C;
"""


def load_text(rank, coordinates, expected):
    places = ", ".join(str(c) for c in coordinates)
    return (
        pointer("%rd1", "out")
        + MAP_ADDRESS
        + only_thread(0, "mbarrier.init.shared::cta.b64 [bar], 1;")
        + CLEAR
        + INIT_DONE
        + only_thread(
            0,
            f"""mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], {expected};
cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes
    [%r3], [%rd20, {{{places}}}], [bar];""",
        )
        + wait("bar", 0)
        + DUMP
    )


def box_of(array, box, coordinates, steps=None, fill=0):
    """The box, outermost dimension first, out-of-bounds elements filled."""
    steps = steps or [1] * array.ndim
    counts = [box[0]] + [-(-b // s) for b, s in zip(box[1:], steps[1:], strict=False)]
    out = np.full(counts[::-1], fill, array.dtype)
    for index in itertools.product(*(range(n) for n in counts[::-1])):
        at = [
            c + i * (s if d else 1)
            for d, (c, i, s) in enumerate(zip(coordinates, index[::-1], steps, strict=False))
        ]
        if all(0 <= a < n for a, n in zip(at, array.shape[::-1], strict=False)):
            out[index] = array[tuple(at[::-1])]
    return out


def unswizzled(raw, rows, row_bytes, swizzle):
    """The rows of a box out of shared memory that starts at a multiple of 1024."""
    pitch = swizzle or row_bytes
    out = np.zeros((rows, row_bytes), np.uint8)
    for row in range(rows):
        for chunk in range(0, row_bytes, 16):
            at = row * pitch + chunk
            # Chunks of 16 bytes are permuted within a span, by the number of the 128-byte line.
            if swizzle:
                line = at // 128 % (swizzle // 16)
                at = at // swizzle * swizzle + ((at % swizzle // 16) ^ line) * 16
            out[row, chunk : chunk + 16] = raw[at : at + 16]
    return out


LOADS = [
    # shape (outermost first), type, box, coordinates, swizzle, steps
    ((40, 64), np.uint16, (64, 8), (0, 8), 128, None),
    ((40, 64), np.uint16, (64, 16), (-24, 32), 128, None),
    ((40, 72), np.uint16, (32, 16), (50, -5), 64, None),
    ((40, 72), np.uint16, (16, 16), (60, 30), 32, None),
    ((1000,), np.uint8, (256,), (900,), 0, None),
    ((6, 7, 12), np.float32, (8, 3, 4), (6, 5, -2), 0, None),
    ((6, 9, 12), np.float32, (8, 4, 5), (2, 1, 0), 32, (1, 2, 3)),
    ((3, 4, 5, 6), np.float64, (4, 3, 2, 2), (3, 3, 2, -1), 0, None),
    ((3, 2, 4, 3, 8), np.float16, (8, 2, 2, 2, 3), (2, 2, 3, 1, 1), 0, None),
]


@pytest.mark.parametrize("mode,seed", [("eager", 0), ("late", 0), ("random", 1)])
@pytest.mark.parametrize("shape,dtype,box,coordinates,swizzle,steps", LOADS)
def test_load(mode, seed, shape, dtype, box, coordinates, swizzle, steps):
    rng = np.random.default_rng(0)
    array = aligned(shape, dtype)
    array[...] = rng.integers(1, 200, shape)
    expected = box_of(array, box, coordinates, steps)
    out = aligned(BYTES, np.uint8)
    size = array.itemsize
    text = load_text(len(shape), coordinates, expected.nbytes)
    tensor_map = TensorMap(array, box, swizzle=swizzle, element_strides=steps)
    module(text, f"{MAP}, u64 out", SHARED).launch(
        "k", 1, 32, [tensor_map, out], mode=mode, seed=seed
    )
    rows = expected.nbytes // (box[0] * size)
    seen = unswizzled(out, rows, box[0] * size, swizzle)
    np.testing.assert_array_equal(seen.ravel().view(dtype), expected.ravel())
    assert (out == 0x55).sum() >= BYTES - rows * (swizzle or box[0] * size) - (seen == 0x55).sum()


@pytest.mark.parametrize("dtype,nan", [(np.float16, 0x7FFF), (np.float32, 0x7FFFFFFF)])
def test_fill_with_nan(dtype, nan):
    array = aligned((8, 16), dtype, 1)
    out = aligned(BYTES, np.uint8)
    text = load_text(2, (8, 4), 16 * 8 * array.itemsize)
    tensor_map = TensorMap(array, (16, 8), fill="nan")
    module(text, f"{MAP}, u64 out", SHARED).launch("k", 1, 32, [tensor_map, out])
    seen = out[: 128 * array.itemsize].view(dtype).reshape(8, 16)
    assert (seen[:4, :8] == 1).all()
    bits = seen.view(np.dtype(f"u{array.itemsize}"))
    assert (bits[4:] == nan).all() and (bits[:, 8:] == nan).all()


@pytest.mark.parametrize("kind", ["float32", "float32_ftz", "tfloat32"])
def test_conversions_on_load(kind):
    values = np.array([1 + 2**-11 + 2**-13, 1e-40, -1e-40, np.inf], np.float32)
    array = aligned((1, 4), np.float32, values)
    out = aligned(BYTES, np.uint8)
    tensor_map = TensorMap(array, (4, 1), data_type=kind)
    module(load_text(2, (0, 0), 16), f"{MAP}, u64 out", SHARED).launch(
        "k", 1, 32, [tensor_map, out]
    )
    seen = out[:16].view(np.float32)
    if kind == "float32":
        np.testing.assert_array_equal(seen, values)
    elif kind == "float32_ftz":
        np.testing.assert_array_equal(seen, [values[0], 0, 0, np.inf])
    else:
        assert seen[0] == 1 + 2**-10 and seen[3] == np.inf


def store_text(rank, coordinates, copy, swizzled=False):
    places = ", ".join(str(c) for c in coordinates)
    fill = """mov.u32 %r1, %tid.x;
shl.b32 %r1, %r1, 2;
F: add.u32 %r2, %r1, %r3;
cvt.u64.u32 %rd12, %r1;
add.s64 %rd11, %rd1, %rd12;
ld.global.u32 %r4, [%rd11];
st.shared.u32 [%r2], %r4;
add.u32 %r1, %r1, 128;
setp.lt.u32 %p1, %r1, 4096;
@%p1 bra F;
fence.proxy.async.shared::cta;
bar.sync 0;
"""
    return (
        pointer("%rd1", "in")
        + MAP_ADDRESS
        + fill
        + only_thread(
            0,
            copy.format(places=places)
            + "\ncp.async.bulk.commit_group;\ncp.async.bulk.wait_group.read 0;",
        )
    )


STORE = "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%rd20, {{{places}}}], [%r3];"


@pytest.mark.parametrize("mode,seed", MODES)
@pytest.mark.parametrize("swizzle", [0, 128])
@pytest.mark.parametrize("coordinates", [(0, 0), (-8, 30), (40, -3)])
def test_store(mode, seed, swizzle, coordinates):
    """Out-of-bounds elements are left out; what lies beside the box is not touched."""
    rng = np.random.default_rng(0)
    raw = aligned(4096, np.uint8, rng.integers(0, 256, 4096))
    out = aligned((40, 72), np.uint16, 7)
    tensor_map = TensorMap(out, (64, 16), swizzle=swizzle)
    text = store_text(2, coordinates, STORE)
    module(text, f"{MAP}, u64 in", SHARED).launch(
        "k", 1, 32, [tensor_map, raw], mode=mode, seed=seed
    )
    expected = np.full((40, 72), 7, np.uint16)
    tile = unswizzled(raw, 16, 128, swizzle).view(np.uint16)
    for i, j in itertools.product(range(16), range(64)):
        row, column = coordinates[1] + i, coordinates[0] + j
        if 0 <= row < 40 and 0 <= column < 72:
            expected[row, column] = tile[i, j]
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("op", ["add", "min", "max"])
def test_reduction(op):
    rng = np.random.default_rng(0)
    tile = rng.integers(-50, 50, (16, 32)).astype(np.int32)
    out = aligned((20, 40), np.int32)
    out[...] = rng.integers(-50, 50, (20, 40))
    raw = aligned(4096, np.uint8)
    raw[:2048] = tile.ravel().view(np.uint8)
    before = out.copy()
    copy = f"cp.reduce.async.bulk.tensor.2d.global.shared::cta.{op}.tile.bulk_group "
    copy += "[%rd20, {{{places}}}], [%r3];"
    text = store_text(2, (16, 8), copy)
    module(text, f"{MAP}, u64 in", SHARED).launch("k", 1, 32, [TensorMap(out, (32, 16)), raw])
    expected = before.copy()
    combine = {"add": np.add, "min": np.minimum, "max": np.maximum}[op]
    expected[8:, 16:] = combine(before[8:, 16:], tile[:12, :24])
    np.testing.assert_array_equal(out, expected)


def test_faults():
    array, out = aligned((40, 64), np.uint16, 1), aligned(BYTES, np.uint8)

    def run(text, argument, said, kind=ptx_emulator.MemoryFault):
        with pytest.raises(kind, match=said):
            module(text, f"{MAP}, u64 out", SHARED).launch("k", 1, 32, [argument, out])

    good = TensorMap(array, (64, 8), swizzle=128)
    text = load_text(2, (0, 0), 1024)
    run(text, bytes(128), "no tensor map")
    run(load_text(3, (0, 0, 0), 1024), good, "dimensions")
    run(text.replace("[%r3], [%rd20", "[%r3+64], [%rd20"), good, "multiple of 128")
    run(load_text(2, (0, 0), 1008), good, "", (ptx_emulator.Deadlock, ptx_emulator.Race))
    run(text.replace("[%r3], [%rd20", f"[%r3+{BYTES - 512}], [%rd20"), good, "outside")


def test_prefetch():
    """Changes nothing, but the map and the memory must be there."""
    array, out = aligned((40, 64), np.uint16, 1), aligned(BYTES, np.uint8)
    good = TensorMap(array, (64, 8), swizzle=128)
    prefetch = "cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%rd20, {0, 36}];\n"
    text = MAP_ADDRESS + prefetch
    module(text, f"{MAP}, u64 out", SHARED).launch("k", 1, 32, [good, out])
    with pytest.raises(ptx_emulator.MemoryFault, match="no tensor map"):
        module(text, f"{MAP}, u64 out", SHARED).launch("k", 1, 32, [bytes(128), out])
    beyond = TensorMap(array, (64, 8), dims=(64, 400))
    with pytest.raises(ptx_emulator.MemoryFault, match="prefetch"):
        module(text, f"{MAP}, u64 out", SHARED).launch("k", 1, 32, [beyond, out])


@pytest.mark.parametrize("tensor", ["tile::gather4", "im2col"])
def test_modes_that_are_refused_at_load(tensor):
    text = load_text(2, (0, 0), 1024).replace(".global.tile.", f".global.{tensor}.")
    with pytest.raises(AssertionError, match=tensor.split(":")[0]):
        module(text, f"{MAP}, u64 out", SHARED)


def test_map_made_in_the_kernel():
    """tensormap.replace on zeros, then copied to global memory behind a fence."""
    array, out, space = (
        aligned((16, 64), np.uint16, 3),
        aligned(BYTES, np.uint8),
        aligned(128, np.uint8),
    )
    array[...] = np.arange(1024).reshape(16, 64)
    fields = [
        ("rank", "b32", "", "1"),
        ("box_dim", "b32", "0, ", "64"),
        ("box_dim", "b32", "1, ", "8"),
        ("global_dim", "b32", "0, ", "64"),
        ("global_dim", "b32", "1, ", "16"),
        ("global_stride", "b64", "0, ", "%rd30"),
        ("element_stride", "b32", "0, ", "1"),
        ("element_stride", "b32", "1, ", "1"),
        ("elemtype", "b32", "", "1"),
        ("interleave_layout", "b32", "", "0"),
        ("swizzle_mode", "b32", "", "0"),
        ("fill_mode", "b32", "", "0"),
    ]
    replaces = "".join(
        f"tensormap.replace.tile.{name}.shared::cta.b1024.{kind} [desc], {ordinal}{value};\n"
        for name, kind, ordinal, value in fields
    )
    text = (
        pointer("%rd1", "out")
        + pointer("%rd2", "space")
        + pointer("%rd3", "array")
        + "mov.u32 %r3, box;\nmov.u64 %rd30, 128;\n"
        + only_thread(0, "mbarrier.init.shared::cta.b64 [bar], 1;")
        + CLEAR
        + INIT_DONE
        + """mov.u32 %r1, %tid.x;
shl.b32 %r1, %r1, 2;
mov.u32 %r5, desc;
add.u32 %r5, %r5, %r1;
st.shared.u32 [%r5], 0;
bar.warp.sync 0xffffffff;
"""
        + only_thread(
            0,
            "tensormap.replace.tile.global_address.shared::cta.b1024.b64 [desc], %rd3;\n"
            + replaces,
        )
        + """bar.warp.sync 0xffffffff;
tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned
    [%rd2], [desc], 128;
fence.proxy.tensormap::generic.acquire.gpu [%rd2], 128;
"""
        + only_thread(
            0,
            """mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 1024;
cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes
    [%r3], [%rd2, {0, 4}], [bar];""",
        )
        + wait("bar", 0)
        + DUMP
    )
    shared = SHARED + ".shared .align 128 .b8 desc[128];\n"
    module(text, "u64 out, u64 space, u64 array", shared).launch("k", 1, 32, [out, space, array])
    np.testing.assert_array_equal(out[:1024].view(np.uint16).reshape(8, 64), array[4:12])
