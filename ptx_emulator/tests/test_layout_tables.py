"""The tables of layouts against each other: what holds for any of them, without the emulator."""

import pytest

from . import layouts


@pytest.mark.parametrize("swizzle", layouts.SWIZZLES)
def test_figure_and_bits_agree(swizzle):
    for offset in range(0, 4096):
        assert layouts.swizzle_by_figure(offset, swizzle) == layouts.swizzle_by_bits(
            offset, swizzle
        )


@pytest.mark.parametrize("swizzle", layouts.SWIZZLES)
@pytest.mark.parametrize("major", ["k", "mn"])
def test_operands_fill_memory_once(major, swizzle):
    # 64 rows of 16-bit elements and 64 columns, in the densest arrangement that there is.
    chunks = max(swizzle // 16, 1)
    if major == "k":
        size, k = 64, 8 * chunks
        stride, leading = 128 * chunks, 128 * 8
    else:
        size, k = 8 * chunks, 64
        stride, leading = (64 * 16, 128) if swizzle == 0 else (128 * chunks, 0)
    layout = layouts.operand_layout(major, swizzle, leading, stride, 2, size, k)
    found = {
        layouts.operand_address(0, layout, mn, j, swizzle, 2)
        for mn in range(size)
        for j in range(k)
    }
    assert found == set(range(0, size * k * 2, 2))


@pytest.mark.parametrize("columns", [8, 64, 256])
def test_accumulators_cover_the_tile(columns):
    found = {layouts.wgmma_accumulator(t, i) for t in range(128) for i in range(columns // 2)}
    assert found == {(row, column) for row in range(64) for column in range(columns)}


@pytest.mark.parametrize("element_bytes", [1, 2, 4])
def test_fragments_cover_the_tile(element_bytes):
    k = 32 // element_bytes
    lanes = range(32)
    a = {layouts.mma_a(lane, i, element_bytes) for lane in lanes for i in range(k // 2)}
    assert a == {(row, column) for row in range(16) for column in range(k)}
    b = {layouts.mma_b(lane, i, element_bytes) for lane in lanes for i in range(k // 4)}
    assert b == {(row, column) for row in range(k) for column in range(8)}
    half = {layouts.mma_a_half(lane, i, element_bytes) for lane in lanes for i in range(k // 4)}
    assert half == {(row, column) for row in range(16) for column in range(k // 2)}
    assert len({layouts.mma_accumulator(lane, i) for lane in lanes for i in range(4)}) == 128
