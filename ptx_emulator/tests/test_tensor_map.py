"""Tensor maps: the driver's argument checks, and the walk over a box."""

import ctypes
import itertools

import numpy as np
import pytest

from ptx_emulator.tensor_map import Arguments

from . import hooks
from .hooks import message_of, pointer

TYPES = [
    "UINT8",
    "UINT16",
    "UINT32",
    "INT32",
    "UINT64",
    "INT64",
    "FLOAT16",
    "FLOAT32",
    "FLOAT64",
    "BFLOAT16",
    "FLOAT32_FTZ",
    "TFLOAT32",
    "TFLOAT32_FTZ",
    "16U4_ALIGN8B",
    "16U4_ALIGN16B",
    "16U6_ALIGN16B",
]
SIZES = dict(zip(TYPES, [1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4], strict=False))
SPANS = [16, 32, 64, 128]


def arguments(
    kind="BFLOAT16",
    address=0x10000,
    dims=(64, 32),
    strides=(128,),
    box=(64, 8),
    steps=(1, 1, 1, 1, 1),
    interleave=0,
    swizzle=0,
    promotion=0,
    fill=0,
):
    a = Arguments(TYPES.index(kind) if isinstance(kind, str) else kind, len(dims), address)
    for field, values in zip(
        ("dims", "strides", "box", "element_strides"), (dims, strides, box, steps), strict=False
    ):
        getattr(a, field)[: len(values)] = list(values)
    a.interleave, a.swizzle, a.l2_promotion, a.oob_fill = interleave, swizzle, promotion, fill
    return a


def complaint(**changes):
    return message_of(hooks.library().ptx_test_check_tensor_map, ctypes.byref(arguments(**changes)))


def encoded(**changes):
    a = arguments(**changes)
    assert complaint(**changes) == ""
    out = np.zeros(128, np.uint8)
    said = message_of(hooks.library().ptx_test_encode_tensor_map, ctypes.byref(a), pointer(out))
    assert said == ""
    return out


GOOD = [
    dict(),
    dict(swizzle=3),
    dict(dims=(1 << 32, 1), strides=((1 << 40) - 16,)),
    dict(dims=(5,), strides=(), box=(8,)),
    dict(dims=(4,) * 5, strides=(16, 32, 48, 0), box=(256, 1, 256, 1, 256)),
    dict(steps=(0, 8)),  # the first is not looked at
    dict(kind="UINT8", box=(32, 8), swizzle=1),
    dict(kind="FLOAT32", box=(16, 8), swizzle=2),
    dict(fill=1),
    dict(kind="FLOAT32_FTZ", box=(4, 1), fill=1),
    dict(promotion=3),
    dict(swizzle=4),
    dict(dims=(8, 4, 4), strides=(32, 64), box=(8, 1, 1), interleave=1),
    dict(dims=(8, 4, 4), strides=(32, 64), box=(8, 1, 1), interleave=2, swizzle=1),
    dict(kind="16U4_ALIGN8B", dims=(32, 2), box=(32, 1)),
    dict(kind="16U6_ALIGN16B", dims=(128, 2), box=(128, 1)),
]
BAD = [
    ("tensorDataType", dict(kind=16)),
    ("tensorDataType", dict(kind=-1)),
    ("tensorRank", dict(dims=(), strides=(), box=())),
    ("tensorRank", dict(interleave=1)),
    ("globalAddress", dict(address=0x10008)),
    (
        "globalAddress",
        dict(
            address=0x10010,
            dims=(8, 4, 4),
            strides=(32, 64),
            box=(8, 1, 1),
            interleave=2,
            swizzle=1,
        ),
    ),
    ("globalAddress", dict(kind="16U4_ALIGN16B", address=0x10010, dims=(128, 2), box=(128, 1))),
    ("globalDim[1]", dict(dims=(64, 0))),
    ("globalDim[0]", dict(dims=((1 << 32) + 1, 1))),
    ("globalDim[0]", dict(kind="16U4_ALIGN16B", dims=(64, 2), box=(128, 1))),
    ("globalDim[0]", dict(kind="16U4_ALIGN8B", dims=(63, 2), box=(32, 1))),
    ("globalStrides[0]", dict(strides=(120,))),
    ("globalStrides[0]", dict(strides=(1 << 40,))),
    (
        "globalStrides[1]",
        dict(dims=(8, 4, 4), strides=(32, 48), box=(8, 1, 1), interleave=2, swizzle=1),
    ),
    ("boxDim[1]", dict(box=(64, 0))),
    ("boxDim[1]", dict(box=(64, 257))),
    ("boxDim[0]", dict(box=(257, 1))),
    ("boxDim[0]", dict(box=(4, 8))),  # 8 bytes
    ("boxDim[0]", dict(kind="UINT8", box=(24, 8))),
    ("boxDim[0]", dict(box=(64, 8), swizzle=2)),  # 128 bytes in a span of 64
    ("boxDim[0]", dict(box=(32, 8), swizzle=1)),
    ("boxDim[0]", dict(box=(72, 8), swizzle=3)),
    ("boxDim[0]", dict(box=(72, 8), swizzle=5)),
    ("boxDim[0]", dict(kind="16U6_ALIGN16B", dims=(128, 2), box=(64, 1))),
    ("elementStrides[1]", dict(steps=(1, 0))),
    ("elementStrides[1]", dict(steps=(1, 9))),
    ("interleave", dict(interleave=3)),
    ("swizzle", dict(swizzle=7)),
    ("swizzle", dict(dims=(8, 4, 4), strides=(32, 64), box=(8, 1, 1), interleave=2, swizzle=3)),
    ("l2Promotion", dict(promotion=4)),
    ("oobFill", dict(fill=2)),
    ("oobFill", dict(kind="INT32", box=(16, 8), fill=1)),
    ("oobFill", dict(kind="16U4_ALIGN8B", dims=(32, 2), box=(32, 1), fill=1)),
]


@pytest.mark.parametrize("changes", GOOD)
def test_accepted(changes):
    assert complaint(**changes) == ""


@pytest.mark.parametrize("argument,changes", BAD)
def test_refused(argument, changes):
    assert complaint(**changes).startswith(argument)


@pytest.mark.parametrize(
    "changes", [dict(swizzle=4), dict(swizzle=6), GOOD[12], GOOD[13], GOOD[14], GOOD[15]]
)
def test_named_as_not_modelled(changes):
    out = np.zeros(128, np.uint8)
    lib = hooks.library()
    a = arguments(**changes)
    assert message_of(lib.ptx_test_encode_tensor_map, ctypes.byref(a), pointer(out))


def test_other_bytes_are_no_map():
    check = hooks.library().ptx_test_check_encoded
    good = encoded()
    assert message_of(check, pointer(good)) == ""
    assert message_of(check, pointer(np.zeros(128, np.uint8)))
    for at in range(8):
        bad = good.copy()
        bad[at] ^= 1
        assert "no tensor map" in message_of(check, pointer(bad))


def runs_of(map_bytes, coordinates, shared):
    out = np.zeros((1 << 16, 4), np.uint64)
    where = np.array(coordinates, np.int32)
    n = hooks.library().ptx_test_walk(
        pointer(map_bytes), pointer(where), ctypes.c_uint64(shared), pointer(out), len(out)
    )
    assert n <= len(out)
    return out[:n].astype(np.int64)


def facts_of(map_bytes):
    facts = np.zeros(5, np.int64)
    hooks.library().ptx_test_tensor_map_facts(pointer(map_bytes), pointer(facts))
    return facts


def expected_bytes(kind, address, dims, strides, box, steps, swizzle, coordinates, shared):
    """{shared byte: global byte, or None if out of bounds}, element by element."""
    size, span = SIZES[kind], SPANS[swizzle]
    pitch = span if swizzle else box[0] * size
    counts = [box[0]] + [-(-b // s) for b, s in zip(box[1:], steps[1:], strict=False)]
    out = {}
    for index in itertools.product(*(range(n) for n in reversed(counts))):
        index = index[::-1]
        at = [
            c + i * (s if d else 1)
            for d, (c, i, s) in enumerate(zip(coordinates, index, steps, strict=False))
        ]
        inside = all(0 <= a < n for a, n in zip(at, dims, strict=False))
        row, scale = 0, 1
        for i, n in zip(index[1:], counts[1:], strict=False):
            row, scale = row + i * scale, scale * n
        source = address + at[0] * size + sum(a * s for a, s in zip(at[1:], strides, strict=False))
        target = shared + row * pitch + index[0] * size
        # The figures of the swizzles: the chunk of 16 bytes is xored with the number of the row of
        # 128 bytes, modulo the chunks of a span.
        chunk, line = target // 16 % (span // 16), target // 128 % (span // 16)
        target += ((chunk ^ line) - chunk) * 16
        for b in range(size):
            assert target + b not in out
            out[target + b] = source + b if inside else None
    return out


CASES = [
    # kind, dims, strides, box, steps, swizzle, coordinates
    ("BFLOAT16", (64, 32), (128,), (64, 8), (1, 1), 3, (0, 0)),
    ("BFLOAT16", (64, 32), (128,), (64, 8), (1, 1), 3, (-8, 28)),
    ("BFLOAT16", (63, 32), (128,), (64, 8), (1, 1), 3, (3, -3)),
    ("BFLOAT16", (64, 32), (144,), (32, 16), (1, 1), 2, (40, 5)),
    ("BFLOAT16", (64, 32), (144,), (16, 16), (1, 1), 1, (50, 20)),
    ("BFLOAT16", (64, 32), (144,), (16, 9), (1, 1), 3, (51, 20)),  # narrower than the span
    ("UINT8", (1000, 9), (1008,), (256, 4), (1, 1), 0, (900, 7)),
    ("UINT8", (77,), (), (48,), (1,), 0, (60,)),
    ("UINT8", (77,), (), (48,), (1,), 0, (-47,)),
    ("UINT8", (77,), (), (48,), (1,), 0, (-48,)),
    ("UINT8", (77,), (), (48,), (1,), 0, (77,)),
    ("FLOAT32", (10, 9, 8), (48, 480), (8, 3, 4), (1, 1, 1), 0, (4, 7, -2)),
    ("FLOAT32", (10, 9, 8), (48, 480), (8, 4, 5), (1, 2, 3), 1, (4, 2, 1)),
    ("FLOAT64", (6, 5, 4, 3), (48, 256, 1024), (4, 3, 2, 2), (1,) * 4, 2, (-1, 3, 3, 2)),
    (
        "FLOAT16",
        (8, 3, 4, 3, 5),
        (16, 48, 192, 0),
        (8, 2, 2, 2, 3),
        (1, 1, 2, 1, 1),
        0,
        (2, 2, -1, 2, 3),
    ),
    ("FLOAT16", (1 << 32, 2), (1 << 34,), (8, 2), (1, 1), 0, (2147483640, 1)),
    ("FLOAT16", (8, 2), (16,), (8, 2), (1, 1), 0, (-2147483648, -2147483648)),
]


@pytest.mark.parametrize("kind,dims,strides,box,steps,swizzle,coordinates", CASES)
@pytest.mark.parametrize("shared", [0x400, 0x2000, 0x2080])
def test_walk(kind, dims, strides, box, steps, swizzle, coordinates, shared):
    m = encoded(kind=kind, dims=dims, strides=strides, box=box, steps=steps, swizzle=swizzle)
    address = 0x10000
    expected = expected_bytes(
        kind, address, dims, strides, box, steps, swizzle, coordinates, shared
    )
    seen = {}
    for source, target, count, inside in runs_of(m, coordinates, shared):
        assert count > 0 and (not swizzle or count <= 16)
        for b in range(count):
            assert target + b not in seen
            seen[target + b] = source + b if inside else None
    assert seen == expected
    pitch, box_bytes, extent, *_ = facts_of(m)
    assert box_bytes == len(expected)
    assert max(expected) < shared + extent and extent % pitch == 0


def test_facts_of_types():
    assert list(facts_of(encoded(kind="FLOAT32", box=(4, 1)))[3:]) == [0, 0]
    assert list(facts_of(encoded(kind="FLOAT32_FTZ", box=(4, 1), fill=1))[3:]) == [1, 3]
    assert list(facts_of(encoded(kind="TFLOAT32", box=(4, 1)))[3:]) == [2, 0]
    assert list(facts_of(encoded(kind="TFLOAT32_FTZ", box=(4, 1)))[3:]) == [3, 0]
    assert facts_of(encoded(fill=1))[4] == 2
    assert facts_of(encoded(kind="FLOAT16", fill=1))[4] == 1
    assert facts_of(encoded(kind="FLOAT64", box=(2, 1), fill=1))[4] == 4
