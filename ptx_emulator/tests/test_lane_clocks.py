"""What is known of a warp's lanes one by one, and the mistakes that only this finds: an mbarrier
that does not wait for all lanes of a warp, in whatever round."""

import numpy as np
import pytest

import ptx_emulator

from . import hooks
from .ptx_text import INIT_DONE, MODES, module, only_thread, only_warp, pointer, wait

LANES = 32
EXACT = (4, 7)  # beside a time that all lanes have reached, two are kept exactly
MANY = tuple(range(1, 9))


def draw(random, times):
    lanes, others = (int(x) for x in random.integers(0, 2**LANES, 2, dtype=np.uint64))
    one = 1 << int(random.integers(LANES))
    return int(random.choice(times)), [lanes, lanes | others, one][random.integers(3)], 0


def times_of(rows):
    """The time up to which each lane is known, exactly."""
    known = np.zeros(LANES, np.int64)
    for time, lanes, full in rows:
        in_row = np.array([full or lanes >> lane & 1 for lane in range(LANES)], bool)
        known[in_row] = np.maximum(known[in_row], time)
    return known


def answers(rows, split, meet, asked):
    rows, asked = np.array(rows, np.uint32), np.array(asked, np.uint32)
    out = np.zeros(len(asked), np.uint8)
    hooks.library().ptx_test_known(
        hooks.pointer(rows),
        len(rows),
        split,
        meet,
        hooks.pointer(asked),
        len(asked),
        hooks.pointer(out),
    )
    return out.astype(bool)


@pytest.mark.parametrize("meet", [0, 1], ids=["join", "meet"])
@pytest.mark.parametrize("times", [EXACT, MANY], ids=["two times", "many"])
def test_lanes_against_a_time_for_each(times, meet):
    """Never less is known than is so; with two times never more."""
    random = np.random.default_rng(len(times) + meet)
    for _ in range(300):
        rows = [draw(random, times) for _ in range(random.integers(1, 9))]
        if random.integers(2):
            rows.insert(random.integers(len(rows)), (int(random.choice(times)), 0, 1))
        split = int(random.integers(len(rows) + 1))
        both = times_of(rows[:split]), times_of(rows[split:])
        known = np.minimum(*both) if meet else np.maximum(*both)
        asked = [(t, 1 << lane) for t in range(1, 10) for lane in range(LANES)]
        asked += [draw(random, MANY)[:2] for _ in range(20)]
        true = [all(known[i] >= t for i in range(LANES) if who >> i & 1) for t, who in asked]
        # What is asked of no lane is known if it is of any.
        asked += [(t, 0) for t in range(1, 10)]
        true += [t <= known.max() for t in range(1, 10)]
        said = answers(rows, split, meet, asked)
        assert (said | ~np.array(true)).all(), (rows, split)
        if times is EXACT:
            assert (said == true).all(), (rows, split)


def ring(count, rounds, stages=2):
    """Warp 0 reads a stage and frees it; warp 1 waits until it is free, and fills it again in the
    last round only, so that earlier rounds tell nothing of the mistake."""
    bars = [(f"bar+{8 * s}", f"bar+{8 * (stages + s)}") for s in range(stages)]  # free, full
    consumer, producer = "", ""
    for i in range(rounds):
        (free, full), box, phase = bars[i % stages], f"[%r2+{128 * (i % stages)}]", i // stages
        consumer += wait(full, (phase - 1) % 2) if i >= stages else ""
        consumer += f"ld.shared.u32 %r3, {box};\nadd.u32 %r4, %r4, %r3;\n"
        consumer += f"mbarrier.arrive.shared::cta.b64 %rd9, [{free}];\n"
        producer += wait(free, phase % 2)
        producer += f"st.shared.u32 {box}, %r1;\n" if i == rounds - 1 else ""
        producer += f"mbarrier.arrive.shared::cta.b64 %rd9, [{full}];\n"
    # The stages are full at first: that phase of their barriers is over.
    inits = "".join(
        f"mbarrier.init.shared::cta.b64 [{free}], {count};\n"
        f"mbarrier.init.shared::cta.b64 [{full}], {LANES};\n"
        for free, full in bars
    )
    begin = """mov.u32 %r1, %tid.x;
and.b32 %r2, %r1, 31;
shl.b32 %r2, %r2, 2;
mov.u32 %r5, box;
add.u32 %r2, %r2, %r5;
mov.u32 %r4, 0;
"""
    first = "".join(f"st.shared.u32 [%r2+{128 * s}], %r1;\n" for s in range(stages))
    store = """mul.wide.u32 %rd2, %r1, 4;
add.s64 %rd2, %rd1, %rd2;
st.global.u32 [%rd2], %r4;
"""
    return (
        pointer("%rd1", "out")
        + begin
        + only_warp(0, first)
        + only_thread(0, inits)
        + INIT_DONE
        + only_warp(0, consumer + store)
        + only_warp(1, producer)
    )


SHARED = ".shared .align 8 .b64 bar[8];\n.shared .align 16 .b8 box[512];\n"


@pytest.mark.parametrize("mode,seed", MODES)
@pytest.mark.parametrize("stages,rounds", [(1, 1), (1, 2), (1, 5), (2, 2), (2, 6), (3, 9)])
def test_a_count_of_fewer_lanes_is_found_in_any_round(stages, rounds, mode, seed):
    out = np.zeros(32, np.uint32)
    right = module(ring(LANES, rounds, stages), "u64 out", SHARED)
    right.launch("k", 1, 64, [out], mode=mode, seed=seed)
    assert (out == rounds * np.arange(32)).all()
    for missing in (1, 2, 5):
        wrong = module(ring(LANES - missing, rounds, stages), "u64 out", SHARED)
        with pytest.raises(ptx_emulator.Race):
            wrong.launch("k", 1, 64, [out], mode=mode, seed=seed)
