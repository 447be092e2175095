"""Operations among lanes, against the PTX ISA's pseudocode written out here."""

import numpy as np
import pytest

from ptx_emulator import Deadlock, EmulatorError, Race

from .ptx_kernel import per_lane, run

LANES = np.arange(32)


def expected_shuffle(mode, a, b, c):
    """The pseudocode of "shfl.sync", with all lanes taking part."""
    result, predicate = np.zeros(32, np.uint32), np.zeros(32, bool)
    for lane in range(32):
        bval, cval, mask = (int(v) for v in (b[lane] & 31, c[lane] & 31, c[lane] >> 8 & 31))
        most = (lane & mask) | (cval & ~mask & 31)
        least = lane & mask
        if mode == "up":
            j = lane - bval
            ok = j >= most
        elif mode == "down":
            j = lane + bval
            ok = j <= most
        elif mode == "bfly":
            j = lane ^ bval
            ok = j <= most
        else:
            j = least | (bval & ~mask)
            ok = j <= most
        result[lane] = a[j if ok else lane]
        predicate[lane] = ok
    return result, predicate


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize("c", [31, 0, 0x1F, 0x181F, 0x1C07, 0x1000, 0x1F1F, 7, 0xFFFF])
def test_shuffle(mode, c):
    rng = np.random.default_rng(c)
    a = rng.integers(0, 2**32, 32, dtype=np.uint32)
    b = rng.integers(0, 64, 32).astype(np.uint32)
    cs = np.full(32, c, np.uint32)
    result, predicate = expected_shuffle(mode, a, b, cs)
    op = f"shfl.sync.{mode}.b32 %r10|%p1, %r1, %r2, %r3, -1;"
    assert (per_lane("%r10", a, b, cs, setup=op) == result).all()
    assert (per_lane("%r11", a, b, cs, setup=op + "selp.b32 %r11, 1, 0, %p1;") == predicate).all()


def test_halves_of_a_warp_shuffle_apart():
    setup = """
    setp.lt.u32 %p1, %r0, 16;
    @%p1 bra LOW;
    shfl.sync.idx.b32 %r10, %r0, 16, 31, 0xffff0000;
    add.u32 %r10, %r10, 100;
    bra DONE;
    LOW:
    shfl.sync.idx.b32 %r10, %r0, 3, 31, 0xffff;
    DONE:
    """
    assert (per_lane("%r10", setup=setup) == np.where(LANES < 16, 3, 116)).all()


def test_converged_lanes_may_name_different_members():
    setup = """
    setp.lt.u32 %p1, %r0, 16;
    selp.b32 %r5, 0xffff, 0xffff0000, %p1;
    redux.sync.add.s32 %r10, %r0, %r5;
    """
    assert (per_lane("%r10", setup=setup) == np.where(LANES < 16, 120, 376)).all()


def test_a_sync_waits_for_diverged_lanes():
    # The upper half takes longer; the vote needs both.
    setup = """
    mov.u32 %r9, 0;
    setp.ge.u32 %p1, %r0, 16;
    @!%p1 bra VOTE;
    LOOP:
    add.u32 %r9, %r9, 1;
    setp.lt.u32 %p2, %r9, %r0;
    @%p2 bra LOOP;
    VOTE:
    setp.gt.u32 %p3, %r9, 20;
    vote.sync.ballot.b32 %r10, %p3, -1;
    """
    assert (per_lane("%r10", setup=setup) == (0xFFFFFFFF << 21) & 0xFFFFFFFF).all()


@pytest.mark.parametrize("seed", range(4))
def test_exited_lanes_are_not_waited_for(seed):
    setup = (
        "setp.ge.u32 %p1, %r0, 20; @%p1 exit; activemask.b32 %r9; vote.sync.ballot.b32 %r10, 1, -1;"
    )
    got = per_lane("%r10", setup=setup, seed=seed)
    assert (got == np.where(LANES < 20, (1 << 20) - 1, 0)).all()


def test_votes():
    x = np.array([1] * 31 + [0], np.uint32)
    prepare = "setp.ne.u32 %p1, %r1, 0;"
    for mode, plain, negated in [("all", 0, 0), ("any", 1, 1), ("uni", 0, 0)]:
        for source, value in [("%p1", plain), ("!%p1", negated)]:
            setup = f"{prepare} vote.sync.{mode}.pred %p2, {source}, -1; selp.b32 %r10, 1, 0, %p2;"
            assert (per_lane("%r10", x, setup=setup) == value).all(), (mode, source)
    setup = prepare + "vote.sync.ballot.b32 %r10, !%p1, -1;"
    assert (per_lane("%r10", x, setup=setup) == 1 << 31).all()


@pytest.mark.parametrize("members", [0xFFFFFFFF, 0x0000FFFF, 0x80000001])
def test_match(members):
    x = np.random.default_rng(1).integers(0, 3, 32).astype(np.uint32)
    inside = [lane for lane in range(32) if members >> lane & 1]
    guard = f"shr.b32 %r8, {members:#x}, %r0; and.b32 %r8, %r8, 1; setp.ne.u32 %p1, %r8, 0;"
    setup = f"mov.u32 %r10, 0; {guard} @%p1 match.any.sync.b32 %r10, %r1, {members:#x};"
    expected = [
        sum(1 << m for m in inside if x[m] == x[lane]) if lane in inside else 0
        for lane in range(32)
    ]
    assert (per_lane("%r10", x, setup=setup) == np.array(expected, np.uint32)).all()
    same = np.full(32, 5, np.uint32)
    for values in (x, same):
        setup = (
            f"mov.u32 %r10, 0; setp.ne.u32 %p3, %r0, %r0; {guard}"
            f"@%p1 match.all.sync.b32 %r10|%p3, %r1, {members:#x}; selp.b32 %r11, 1, 0, %p3;"
        )
        equal = len({values[m] for m in inside}) == 1
        expected = [members if equal and lane in inside else 0 for lane in range(32)]
        assert (per_lane("%r10", values, setup=setup) == np.array(expected, np.uint32)).all()
        assert (per_lane("%r11", values, setup=setup) == (np.array(expected) != 0)).all()


def test_match_of_64_bits():
    x = np.array([1, 2] * 16, np.uint32)
    setup = "mov.b64 %rd9, {1, %r1}; match.any.sync.b64 %r10, %rd9, -1;"
    assert (per_lane("%r10", x, setup=setup) == np.where(LANES % 2, 0xAAAAAAAA, 0x55555555)).all()


REDUCTIONS = {
    "add.u32": lambda x: x.sum(dtype=np.uint32),
    "add.s32": lambda x: x.sum(dtype=np.uint32),
    "min.u32": np.min,
    "max.u32": np.max,
    "min.s32": lambda x: x.view(np.int32).min().view(np.uint32),
    "max.s32": lambda x: x.view(np.int32).max().view(np.uint32),
    "and.b32": np.bitwise_and.reduce,
    "or.b32": np.bitwise_or.reduce,
    "xor.b32": np.bitwise_xor.reduce,
}


@pytest.mark.parametrize("op", REDUCTIONS)
def test_redux(op):
    x = np.random.default_rng(2).integers(0, 2**32, 32, dtype=np.uint32)
    got = per_lane("%r10", x, setup=f"redux.sync.{op} %r10, %r1, -1;")
    assert (got == REDUCTIONS[op](x)).all()


def test_elect():
    setup = "elect.sync %r9|%p1, -1; selp.b32 %r10, 100, %r9, %p1;"
    assert (per_lane("%r10", setup=setup) == np.where(LANES == 0, 100, 0)).all()
    setup = """
    mov.u32 %r10, 7; setp.ge.u32 %p2, %r0, 8;
    @%p2 elect.sync _|%p1, 0xffffff00;
    @%p2 selp.b32 %r10, 1, 0, %p1;
    """
    assert (per_lane("%r10", setup=setup) == [7] * 8 + [1] + [0] * 23).all()


def test_activemask_of_a_guarded_instruction():
    setup = "mov.u32 %r10, 0; setp.lt.u32 %p1, %r0, 5; @%p1 activemask.b32 %r10;"
    assert (per_lane("%r10", setup=setup) == np.where(LANES < 5, 31, 0)).all()


def test_bar_warp_sync_may_be_met_at_different_places():
    setup = """
    setp.lt.u32 %p1, %r0, 16;
    @%p1 bra LOW;
    bar.warp.sync -1;
    mov.u32 %r10, 1;
    bra DONE;
    LOW:
    bar.warp.sync -1;
    mov.u32 %r10, 2;
    DONE:
    """
    assert (per_lane("%r10", setup=setup) == np.where(LANES < 16, 2, 1)).all()


@pytest.mark.parametrize("diverged", [False, True])
def test_tiles_of_a_warp_sync_apart(diverged):
    """As cooperative_groups' tiled_partition<8> does: one instruction, a mask for each tile."""
    apart = "setp.lt.u32 %p1, %r0, 12; @%p1 bra LATE; bra MEET; LATE: mov.u32 %r9, 1; MEET:"
    setup = f"""
    .shared .align 4 .b32 s[32];
    mov.u32 %r2, s; shl.b32 %r3, %r0, 2; add.u32 %r4, %r2, %r3;
    xor.b32 %r5, %r3, 20; add.u32 %r5, %r2, %r5;
    and.b32 %r6, %r0, 24; mov.u32 %r7, 255; shl.b32 %r7, %r7, %r6;
    {apart if diverged else ""}
    st.shared.u32 [%r4], %r0;
    bar.warp.sync %r7;
    ld.shared.u32 %r1, [%r5];
    """
    np.testing.assert_array_equal(per_lane("%r1", setup=setup), LANES ^ 5)
    with pytest.raises(Race):
        per_lane("%r1", setup=setup.replace("20;", "36;"))


def test_indexed_branches_scatter_and_meet_again():
    setup = """
    and.b32 %r1, %r0, 3;
    TARGETS: .branchtargets A, B, C, D;
    brx.idx %r1, TARGETS;
    A: mov.u32 %r9, 10; bra DONE;
    B: mov.u32 %r9, 20; bra DONE;
    C: mov.u32 %r9, 30; bra DONE;
    D: mov.u32 %r9, 40;
    DONE:
    redux.sync.add.u32 %r10, %r9, -1;
    add.u32 %r10, %r10, %r9;
    """
    assert (per_lane("%r10", setup=setup) == 800 + 10 * (LANES % 4 + 1)).all()


def test_a_lane_outside_of_its_own_members_is_an_error():
    with pytest.raises(EmulatorError, match="not in its own member mask"):
        run("vote.sync.ballot.b32 %r1, 1, 0xfffffffe; ret;")


def test_members_that_never_come_are_a_deadlock_that_says_where():
    with pytest.raises(Deadlock) as raised:
        run(
            "setp.lt.u32 %p1, %r0, 3; @%p1 bra A; L: bra L;A: vote.sync.ballot.b32 %r1, 1, -1; ret;"
        )
    assert "lanes 0-2" in str(raised.value) and "lanes 3-31 of the warp" in str(raised.value)
    assert "vote.sync.ballot.b32" in str(raised.value)
