"""Tiles that wgmma reads again and again: races with any of the reads, at any of the chunks."""

import re

import numpy as np
import pytest

import ptx_emulator

from .ptx_text import MODES, module
from .test_wgmma import B_AT, BOX, COMMIT, FENCE, SHARED, WAIT, Problem, multiply

PROXY_FENCE = "fence.proxy.async.shared::cta;\n"
BARRIER = "bar.sync 0;\n"


def read(a, b):
    """A wgmma of two tiles, by their descriptors, as a group of its own."""
    return (
        f"mov.u64 %rd30, {a};\nmov.u64 %rd31, {b};\n"
        + FENCE
        + multiply(64, "bf16", "%rd30", "%rd31", "%p11")
        + COMMIT
    )


def tile_a(p, step=0):
    return p.a.descriptor(BOX, step)


def tile_b(p, step=0):
    return p.b.descriptor(BOX + B_AT, step)


def store(thread, offset):
    return f"setp.eq.u32 %p12, %r1, {thread};\n@%p12 st.shared.u8 [box+{offset}], 0;\n"


def run(p, middle, mode, seed, warpgroups=1):
    """The report of races, or nothing. Only the first warpgroup's result is stored."""
    threads = 128 * warpgroups
    text = p.text(p.zero() + middle)
    text = text.replace("2048;\nsetp.lt", f"{16 * threads};\nsetp.lt")
    text = text.replace("setp.ne.u32 %p10", "setp.lt.u32 %p13, %r1, 128;\nsetp.ne.u32 %p10")
    text = text.replace("st.global.f32", "@%p13 st.global.f32")
    out = np.zeros((32, 128), np.uint32)
    loaded = module(text, "u64 in, u64 out", SHARED)
    try:
        loaded.launch("k", 1, threads, [p.memory, out], mode=mode, seed=seed)
    except ptx_emulator.Race as race:
        return str(race)
    return ""


def chunk(row, half, at=0):
    """The offset of what step 0 reads of a row: 32 of its 128 bytes, swizzled."""
    return at + 128 * row + 16 * (row % 8 ^ half)


# The first chunk, some in the middle and the last, of A and of B.
CHUNKS = [chunk(row, half, at) for row, half in ((0, 0), (37, 1), (63, 1)) for at in (0, B_AT)]
at_each_chunk = pytest.mark.parametrize("offset", CHUNKS)
in_each_mode = pytest.mark.parametrize("mode,seed", MODES)


@in_each_mode
@at_each_chunk
def test_a_write_races_with_the_last_read(mode, seed, offset):
    """The same tiles each time, by another instruction; all but the last have been waited for."""
    p = Problem(64)
    again = read(tile_a(p), tile_b(p))
    earlier = run(p, (again + WAIT) * 4 + again + store(5, offset) + WAIT, mode, seed)
    assert earlier.count("read by a wgmma") == 1
    later = run(p, (again + WAIT) * 5 + again + store(5, offset) + WAIT, mode, seed)
    lines = [int(re.search(r"PTX line (\d+): wgmma", text)[1]) for text in (earlier, later)]
    assert lines[1] - lines[0] == (again + WAIT).count("\n")


@in_each_mode
@at_each_chunk
@pytest.mark.parametrize("missing, races", [("", 0), (PROXY_FENCE, 3), (BARRIER, 1)])
def test_a_read_races_with_a_write_before_it(mode, seed, offset, missing, races):
    """Each of three reads lacks the fence; one that is unordered has been reported once for all."""
    p = Problem(64)
    again = read(tile_a(p), tile_b(p)) + WAIT
    write = BARRIER + store(40, offset) + (PROXY_FENCE if missing != PROXY_FENCE else "")
    write += BARRIER if missing != BARRIER else ""
    text = run(p, 3 * again + write + 3 * again, mode, seed)
    assert text.count("read by a wgmma") == races, text


@in_each_mode
@at_each_chunk
def test_two_warpgroups_read_the_same_tiles(mode, seed, offset):
    """Each in its own time; the one that writes has waited only for itself."""
    p = Problem(64)
    again = 5 * (read(tile_a(p), tile_b(p)) + WAIT)
    ordered = again + BARRIER + store(200, offset)
    assert run(p, ordered, mode, seed, warpgroups=2) == ""
    text = run(p, again + store(200, offset), mode, seed, warpgroups=2)
    assert "a wgmma of warpgroup 0" in text and "write by thread (200,0,0)" in text


@in_each_mode
def test_a_tile_is_both_operands(mode, seed):
    """Its parts as A and the whole as B are reads of one agent in the same cells."""
    p = Problem(64)
    again = read(tile_b(p), tile_b(p))
    for offset in CHUNKS[1::2]:
        assert run(p, 3 * (again + WAIT) + store(9, offset), mode, seed) == ""
        text = run(p, 3 * (again + WAIT) + again + store(9, offset) + WAIT, mode, seed)
        assert "read by a wgmma" in text


@in_each_mode
def test_other_tiles_in_between(mode, seed):
    """Other steps of the same rows do not make a read of step 0 forgotten, nor a write to it."""
    p = Problem(64)
    steps = [read(tile_a(p, i), tile_b(p, i)) for i in range(4)]
    write = store(3, chunk(11, 0, B_AT))
    for i in range(4):
        text = run(p, 2 * ("".join(steps) + WAIT) + steps[i] + write + WAIT, mode, seed)
        assert ("read by a wgmma" in text) == (i == 0)
        text = run(p, 2 * ("".join(steps) + WAIT) + write + steps[i] + WAIT, mode, seed)
        assert ("read by a wgmma" in text) == (i == 0)


@in_each_mode
def test_more_writers_than_are_remembered(mode, seed):
    """Three warpgroups have written the tiles; the last of their warps does so once more."""
    p = Problem(64)
    again = read(tile_a(p), tile_b(p)) + WAIT
    assert run(p, 4 * again, mode, seed, warpgroups=4) == ""
    late = 2 * again + BARRIER + store(511, chunk(62, 1)) + BARRIER + 2 * again
    assert "fence.proxy.async" in run(p, late, mode, seed, warpgroups=4)
