"""Main loops together, of kernels counted by hand whose loops were unrolled, or look like it."""

import itertools

import numpy as np
import pytest

from .profiled import profiled


def unrolled(step, count, by, form):
    """PTX that does `step` as often as the register `count` says: a loop of `by` steps, and the
    remainder as a cascade of branches or as a loop, behind it or in front."""
    steps = (step.replace("@@", f"{form}{i}") for i in itertools.count())
    loop = f"""
        setp.lt.u32 %p9, {count}, {by};
        @%p9 bra LEFT;
        div.u32 %r20, {count}, {by};
        MAIN: {"".join(itertools.islice(steps, by))}
        sub.u32 %r20, %r20, 1;
        setp.ne.u32 %p9, %r20, 0;
        @%p9 bra MAIN;
        LEFT:
        """
    if form == "cascade":
        rest = "".join(
            f"setp.eq.u32 %p9, %r21, {i};\n@%p9 bra DONE;\n{next(steps)}" for i in range(by - 1)
        )
    else:
        rest = f"""
            setp.eq.u32 %p9, %r21, 0;
            @%p9 bra NONE;
            AGAIN: {next(steps)}
            sub.u32 %r21, %r21, 1;
            setp.ne.u32 %p9, %r21, 0;
            @%p9 bra AGAIN;
            NONE:
            """
    parts = [rest, loop] if form == "front" else [loop, rest]
    return f"""
        setp.eq.u32 %p9, {count}, 0;
        @%p9 bra DONE;
        rem.u32 %r21, {count}, {by};
        {parts[0]}
        {parts[1]}
        DONE:
        """


# A tile of 512 bytes, after a wait for an empty slot.
COPY = """
WAIT@@: mbarrier.try_wait.parity.shared::cta.b64 %p8, [%r4], 1;
@!%p8 bra WAIT@@;
cp.async.cg.shared.global [%r3], [%rd4], 16;
cp.async.commit_group;
"""
MMA = """
mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32
    {%f1, %f2, %f3, %f4}, {%r5, %r6}, {%r7}, {%f1, %f2, %f3, %f4};
"""
L2, COPIES, TENSOR = 512 / 64, 512 / 128, 2 * 16 * 8 * 8 / 4096


def two_roles(math, copy, grid=1, name="copy"):
    """Warp 0 multiplies, warp 1 copies, and has this name; %r1 is for loops around."""
    body = f"""
        mov.u32 %r3, buffer;
        mov.u32 %r4, barrier;
        mul.wide.u32 %rd4, %r0, 16;
        add.u64 %rd4, %rd0, %rd4;
        and.b32 %r2, %r0, 31;
        mad.lo.u32 %r3, %r2, 16, %r3;
        setp.eq.u32 %p1, %r0, 0;
        @%p1 mbarrier.init.shared::cta.b64 [%r4], 1;
        bar.sync 0;
        mov.u32 %r1, 0;
        setp.lt.u32 %p2, %r0, 32;
        @%p2 bra MATH;
        {copy}
        ret;
        MATH:
        {math}
        ret;
        """
    before = ".shared .align 128 .b8 buffer[1024];\n.shared .align 8 .b64 barrier;"
    profile = profiled(
        body, np.zeros(1024, np.uint8), block=64, grid=grid, before=before, races=False
    )
    roles = {role["name"]: role for role in profile.as_dict()["roles"]}
    assert set(roles) == {"math", name}
    return profile.bounds["loops"], roles


def main_loop(role):
    (main,) = [loop for loop in role["loops"] if loop["is_main"]]
    return main


def plain(step, n, name="PLAIN"):
    return f"""
        mov.u32 %r11, 0;
        {name}: {step}
        add.u32 %r11, %r11, 1;
        setp.lt.u32 %p5, %r11, {n};
        @%p5 bra {name};
        """


FORMS = ["cascade", "behind", "front"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", range(4, 13))
def test_a_producer_that_was_unrolled(form, n):
    copy = f"mov.u32 %r10, {n};\n" + unrolled(COPY, "%r10", 4, form)
    loops, roles = two_roles(plain(MMA, n), copy, grid=3)
    assert loops["iterations_per_cta"] == n
    assert loops["cycles"]["l2"] == L2 and loops["shared"]["copies"] == COPIES
    assert loops["cycles"]["tensor"] == TENSOR
    main = main_loop(roles["copy"])
    assert main["iterations_per_warp"] == 3 * (n // 4)
    assert main["remainder_per_warp"] == 3 * (n % 4) / 4
    assert main["per_iteration"]["copy"] == 4 and main["bound"]["cycles"]["l2"] == 4 * L2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [2, 3, 4, 5, 9])
def test_a_leader_that_was_unrolled(form, n):
    """An iteration has two steps, and an odd step is half of one."""
    math = f"mov.u32 %r10, {n};\n" + unrolled(MMA, "%r10", 2, form)
    loops, roles = two_roles(math, plain(COPY.replace("@@", ""), n, "COPIES"))
    assert loops["iterations_per_cta"] == n / 2
    assert loops["cycles"]["tensor"] == 2 * TENSOR
    assert loops["cycles"]["l2"] == 2 * L2 and loops["shared"]["copies"] == 2 * COPIES
    assert main_loop(roles["math"])["iterations_per_warp"] == n // 2


CONDITIONAL = f"""
setp.eq.u32 %p7, %r1, 9;
@%p7 bra NOTHING;
{COPY.replace("@@", "Q")}
NOTHING: xor.b32 %r11, %r11, %r1;
"""


@pytest.mark.parametrize("in_front", [COPY.replace("@@", "Q"), CONDITIONAL])
@pytest.mark.parametrize("form", FORMS)
def test_a_remainder_inside_another_loop(form, in_front):
    """Tiles of 5, 6 and 7 steps; each begins with a copy of its own, as large as a step's."""
    tiles = f"""
        TILE: xor.b32 %r11, %r11, %r1;
        {in_front}
        add.u32 %r10, %r1, 5;
        {unrolled(COPY, "%r10", 4, form)}
        add.u32 %r1, %r1, 1;
        setp.lt.u32 %p6, %r1, 3;
        @%p6 bra TILE;
        """
    math = f"TILES: add.u32 %r10, %r1, 5;\n{plain(MMA, '%r10')}"
    math += "add.u32 %r1, %r1, 1;\nsetp.lt.u32 %p6, %r1, 3;\n@%p6 bra TILES;"
    loops, roles = two_roles(math, tiles)
    assert loops["iterations_per_cta"] == 5 + 6 + 7
    assert loops["cycles"]["l2"] == L2 and loops["shared"]["copies"] == COPIES
    main = main_loop(roles["copy"])
    assert main["iterations_per_warp"] == 3 and main["remainder_per_warp"] == (1 + 2 + 3) / 4


FOUR = "".join(COPY.replace("@@", str(i)) for i in range(4))
STORE = "st.shared.u32 [%r3+512], %r5;\n"


@pytest.mark.parametrize(
    "behind",
    [
        STORE,
        COPY.replace("@@", "X") + STORE,
        FOUR.replace("WAIT", "X"),  # as much as the loop's body
        "cp.async.commit_group;\n",  # another mixture
    ],
)
def test_what_is_behind_a_loop_and_no_remainder(behind):
    """Behind a branch, in front of the end of the guarded part."""
    copy = f"""
        mov.u32 %r10, 8;
        setp.lt.u32 %p7, %r10, 4;
        @%p7 bra PAST;
        {plain(FOUR, 2)}
        PAST: setp.eq.u32 %p7, %r10, 9;
        @%p7 bra DONE;
        {behind}
        DONE: add.u32 %r10, %r10, 1;
        """
    loops, roles = two_roles(plain(MMA, 8, "MULTIPLY"), copy)
    assert loops["cycles"]["l2"] == L2
    assert main_loop(roles["copy"])["remainder_per_warp"] == 0


@pytest.mark.parametrize("guard", ["", "setp.eq.u32 %p7, %r1, 9;\n@%p7 bra DONE;"])
@pytest.mark.parametrize("in_front", [COPY.replace("@@", "Q"), CONDITIONAL])
def test_what_is_in_front_of_a_loop(in_front, guard):
    copy = f"xor.b32 %r11, %r11, %r1;\n{in_front}\n{guard}\n{plain(FOUR, 2)}\nDONE:"
    loops, roles = two_roles(plain(MMA, 8, "MULTIPLY"), copy)
    assert loops["cycles"]["l2"] == L2
    assert main_loop(roles["copy"])["remainder_per_warp"] == 0


def test_a_branch_to_a_loop():
    """No block is between what is in front and the loop."""
    copy = f"""
        mov.u32 %r11, 0;
        setp.eq.u32 %p7, %r1, 9;
        @%p7 bra PLAIN;
        {COPY.replace("@@", "Q")}
        {plain(FOUR, 2).replace("mov.u32 %r11, 0;", "")}
        """
    loops, roles = two_roles(plain(MMA, 8, "MULTIPLY"), copy)
    assert loops["cycles"]["l2"] == L2
    assert main_loop(roles["copy"])["remainder_per_warp"] == 0


@pytest.mark.parametrize("in_front", [COPY.replace("@@", "Q"), CONDITIONAL])
@pytest.mark.parametrize("test", ["begin", "middle", "end"])
def test_what_is_around_a_loop(test, in_front):
    """The outer loop copies a tile of its own, and may be passed by."""
    leave = "setp.ge.u32 %p6, %r1, 3;\n@%p6 bra DONE;"
    again = "setp.lt.u32 %p6, %r1, 3;\n@%p6 bra TILE;" if test == "end" else "bra TILE;"
    copy = f"""
        setp.eq.u32 %p7, %r1, 9;
        @%p7 bra DONE;
        TILE: xor.b32 %r12, %r12, %r1;
        {leave if test == "begin" else ""}
        {in_front}
        {leave if test == "middle" else ""}
        {plain(FOUR, 2)}
        add.u32 %r1, %r1, 1;
        {again}
        DONE:
        """
    loops, roles = two_roles(plain(MMA, 24, "MULTIPLY"), copy)
    assert loops["cycles"]["l2"] == L2
    assert main_loop(roles["copy"])["remainder_per_warp"] == 0


def test_a_producer_that_goes_through_registers():
    """It loads tiles and stores them to shared memory, and multiplies them by 2 in between."""
    step = """
        ld.global.v4.f32 {%f5, %f6, %f7, %f8}, [%rd4];
        add.f32 %f5, %f5, %f5;
        st.shared.v4.f32 [%r3], {%f5, %f6, %f7, %f8};
        """
    loops, roles = two_roles(plain(MMA, 8), plain(step, 8, "LOAD"))
    assert roles["copy"]["warps"] == [1]
    assert loops["cycles"]["l2"] == L2
    # What writes results is no producer.
    step += "st.global.f32 [%rd4], %f5;"
    two_roles(plain(MMA, 8), plain(step, 8, "LOAD"), name="other")
