"""Lanes of a warp that come to the same bytes, in one instruction or in turn: whoever overwrites
them must have waited for each of these lanes, and for no other."""

import numpy as np
import pytest

import ptx_emulator

from .ptx_text import INIT_DONE, MODES, module, only_thread, only_warp, pointer, wait

BYTES = 256
SHARED = f".shared .align 8 .b64 bar;\n.shared .align 16 .b8 box[{BYTES}];\n"
VALUES = {
    1: ("u8", "%r7"),
    2: ("u16", "%h1"),
    4: ("u32", "%r7"),
    8: ("v2.u32", "{%r7, %r8}"),
    16: ("v4.u32", "{%r7, %r8, %r9, %r10}"),
}


def kernel(op, width, turns):
    """Lanes of warp 0 access the box where `lanes` tells them to, in the turn that it tells, and
    arrive if it says so; then a thread of warp 1 overwrites four bytes."""
    kind, value = VALUES[width]
    place = "[%r6]"
    access = (
        f"ld.shared.{kind} {value}, {place};"
        if op == "ld"
        else f"st.shared.{kind} {place}, {value};"
    )
    lane = """mov.u32 %r1, %tid.x;
mov.u32 %r2, box;
mul.wide.u32 %rd2, %r1, 12;
add.s64 %rd2, %rd1, %rd2;
ld.global.u32 %r3, [%rd2];
ld.global.u32 %r4, [%rd2+4];
ld.global.u32 %r5, [%rd2+8];
add.u32 %r6, %r2, %r3;
mov.b32 %r7, 0;
mov.b32 %r8, 0;
mov.b32 %r9, 0;
mov.b32 %r10, 0;
mov.b16 %h1, 0;
setp.ne.u32 %p3, %r5, 0;
"""
    for turn in range(turns):
        lane += f"""setp.eq.u32 %p1, %r4, {turn};
@%p1 {access}
and.pred %p2, %p1, %p3;
@%p2 mbarrier.arrive.shared::cta.b64 _, [bar];
"""
    fill = """mov.u32 %r11, %tid.x;
shl.b32 %r11, %r11, 3;
mov.u32 %r12, box;
add.u32 %r11, %r11, %r12;
st.shared.v2.u32 [%r11], {%r12, %r12};
"""
    overwrite = """ld.param.u32 %r13, [target];
mov.u32 %r14, box;
add.u32 %r13, %r13, %r14;
st.shared.u32 [%r13], %r13;
"""
    body = pointer("%rd1", "lanes") + "ld.param.u32 %r15, [count];\n" + only_warp(0, fill)
    body += only_thread(0, "mbarrier.init.shared::cta.b64 [bar], %r15;\n") + INIT_DONE
    body += only_warp(0, lane) + only_thread(32, wait("bar", 0) + overwrite)
    return module(body, "u64 lanes, u32 count, u32 target", SHARED)


def draw(random, width, turns):
    """(place, turn, whether it arrives) of each lane, and the place that is overwritten."""
    places = 2 ** int(random.integers(0, 6))
    step = int(random.choice([width, max(width, 16)]))
    at = np.arange(32) if random.integers(2) else random.integers(0, 32, 32)
    lanes = np.zeros((32, 3), np.uint32)
    lanes[:, 0] = at % places * step % BYTES
    lanes[:, 1] = random.integers(0, turns, 32)
    lanes[:, 2] = 1
    for lane in random.integers(0, 32, int(random.integers(0, 3))):
        lanes[lane, 2] = 0
    return lanes, int(random.choice(lanes[:, 0])) // 4 * 4


@pytest.mark.parametrize("width", VALUES)
@pytest.mark.parametrize("op,turns", [("ld", 1), ("ld", 2), ("st", 1)])
def test_who_overwrites_has_waited_for_the_lanes_that_came_before(op, turns, width):
    random = np.random.default_rng(width * 4 + turns)
    loaded = kernel(op, width, turns)
    races = 0
    for case in range(60):
        lanes, target = draw(random, width, turns)
        place = lanes[:, 0].astype(int)
        touched = (place < target + 4) & (target < place + width)
        expected = bool((touched & (lanes[:, 2] == 0)).any())
        races += expected
        mode, seed = MODES[case % len(MODES)]
        args = [lanes, int(lanes[:, 2].sum()), target]
        try:
            loaded.launch("k", 1, 64, args, mode=mode, seed=seed)
            raced = False
        except ptx_emulator.Race:
            raced = True
        assert raced == expected, (lanes.tolist(), target)
    assert 5 < races < 55


# Of warp 0 even lanes arrive at one barrier, odd lanes at another. Then warp 1 overwrites half of
# what lane 0 has read, and later, without being ordered behind that, warp 2 other bytes.
HALVES = (
    """mov.u32 %r1, %tid.x;
and.b32 %r2, %r1, 31;
mov.u32 %r3, box;
shl.b32 %r4, %r2, 3;
add.u32 %r4, %r4, %r3;
"""
    + only_warp(0, "st.shared.v2.u32 [%r4], {%r1, %r1};")
    + only_thread(
        0,
        """mbarrier.init.shared::cta.b64 [bar], 16;
mbarrier.init.shared::cta.b64 [bar+8], 16;
st.relaxed.cta.shared.u32 [flag], 0;
""",
    )
    + INIT_DONE
    + only_warp(
        0,
        """ld.shared.v2.u32 {%r5, %r6}, [%r4];
and.b32 %r7, %r2, 1;
shl.b32 %r7, %r7, 3;
mov.u32 %r8, bar;
add.u32 %r7, %r7, %r8;
mbarrier.arrive.shared::cta.b64 _, [%r7];
""",
    )
    + only_thread(
        32,
        wait("bar", 0)
        + "st.shared.u32 [box], %r1;\nmov.u32 %r9, 1;\nst.relaxed.cta.shared.u32 [flag], %r9;\n",
    )
    + only_thread(
        64,
        wait("bar+8", 0)
        + """SPIN:
ld.relaxed.cta.shared.u32 %r9, [flag];
setp.eq.u32 %p1, %r9, 0;
@%p1 bra SPIN;
st.shared.u32 [box+PLACE], %r1;
""",
    )
)


@pytest.mark.parametrize("mode,seed", MODES)
def test_half_of_what_a_lane_has_read_is_overwritten(mode, seed):
    shared = SHARED.replace(" bar;", " bar[2];") + ".shared .align 16 .u32 flag;\n"
    for place, lane in ((4, 0), (8, 1), (12, 1), (16, 2), (24, 3)):
        text = HALVES.replace("PLACE", str(place)).replace("SPIN", f"SPIN{place}")
        loaded = module(text, shared=shared)
        if lane % 2:  # lane 1 and lane 3 have arrived where warp 2 waits
            loaded.launch("k", 1, 96, [], mode=mode, seed=seed)
        else:
            with pytest.raises(ptx_emulator.Race, match=rf"read by thread \({lane},0,0\)"):
                loaded.launch("k", 1, 96, [], mode=mode, seed=seed)
