"""Iterations of loops of kernels counted by hand."""

import pytest

from .profiled import profiled

FMA = "fma.rn.f32 %f1, %f1, %f1, %f1;\n"


def loops_of(body, **options):
    (role,) = profiled(body, profile=False, **options).as_dict()["roles"]
    return role["loops"]


@pytest.mark.parametrize("n", [1, 2, 3, 32])
def test_tested_at_the_end(n):
    (loop,) = loops_of(
        f"""
        mov.u32 %r1, 0;
        LOOP: {FMA * 20}
        add.u32 %r1, %r1, 1;
        setp.lt.u32 %p1, %r1, {n};
        @%p1 bra LOOP;
        ret;
        """
    )
    assert loop["iterations_per_warp"] == n
    assert loop["per_iteration"] == {"fp": 20, "int": 2, "ctrl": 1}


@pytest.mark.parametrize("n", [1, 2, 3, 32])
def test_tested_at_the_begin(n):
    """The test that ends it is none, but counts as work."""
    (loop,) = loops_of(
        f"""
        mov.u32 %r1, 0;
        LOOP: setp.ge.u32 %p1, %r1, {n};
        @%p1 bra END;
        {FMA * 20}
        add.u32 %r1, %r1, 1;
        bra LOOP;
        END: ret;
        """
    )
    assert loop["iterations_per_warp"] == n
    assert loop["per_iteration"]["fp"] == 20
    assert loop["instructions"] == 2 * (n + 1) + 22 * n


def test_a_test_as_long_as_the_body():
    (loop,) = loops_of(
        """
        mov.u32 %r1, 0;
        LOOP: setp.ge.u32 %p1, %r1, 4;
        @%p1 bra END;
        add.u32 %r1, %r1, 1;
        bra LOOP;
        END: ret;
        """
    )
    assert loop["iterations_per_warp"] == 4


def test_a_loop_that_is_not_entered():
    """Its short test runs, its body doesn't."""
    assert not loops_of(
        f"""
        mov.u32 %r1, 0;
        LOOP: setp.ge.u32 %p1, %r1, 0;
        @%p1 bra END;
        {FMA * 20}
        add.u32 %r1, %r1, 1;
        bra LOOP;
        END: ret;
        """
    )


@pytest.mark.parametrize("n", [1, 2, 4, 32])
@pytest.mark.parametrize("before, behind", [(20, 0), (20, 5), (12, 10)])
def test_left_in_the_middle(n, before, behind):
    """The larger part runs n times, what is behind the exit n - 1 times."""
    (loop,) = loops_of(
        f"""
        mov.u32 %r1, 0;
        LOOP: {FMA * before}
        add.u32 %r1, %r1, 1;
        setp.ge.u32 %p1, %r1, {n};
        @%p1 bra END;
        {FMA * behind}
        bra LOOP;
        END: ret;
        """
    )
    assert loop["iterations_per_warp"] == n
    assert loop["per_iteration"]["fp"] == round(before + behind * (n - 1) / n, 3)
    assert loop["per_iteration"]["int"] == 2


@pytest.mark.parametrize("n", [1, 2, 5])
def test_two_ways_back(n):
    """Odd iterations go back early."""
    (loop,) = loops_of(
        f"""
        mov.u32 %r1, 0;
        LOOP: add.u32 %r1, %r1, 1;
        {FMA * 4}
        setp.ge.u32 %p1, %r1, {n};
        @%p1 bra END;
        and.b32 %r2, %r1, 1;
        setp.eq.u32 %p2, %r2, 1;
        @%p2 bra LOOP;
        {FMA * 30}
        bra LOOP;
        END: ret;
        """
    )
    assert loop["iterations_per_warp"] == n
    assert loop["instructions"] == 7 * n + 3 * (n - 1) + 31 * ((n - 1) // 2)


@pytest.mark.parametrize("tiles", [1, 3])
@pytest.mark.parametrize("steps", [1, 2, 6])
def test_nested(tiles, steps):
    """A long search for the next tile runs once more than the loop that works on it, and that loop
    is left in the middle."""
    outer, inner = loops_of(
        f"""
        mov.u32 %r1, 0;
        TILE: {"xor.b32 %r5, %r5, %r1;" * 12}
        setp.ge.u32 %p1, %r1, {tiles};
        @%p1 bra END;
        mov.u32 %r2, 0;
        STEP: {FMA * 20}
        add.u32 %r2, %r2, 1;
        setp.ge.u32 %p2, %r2, {steps};
        @%p2 bra NEXT;
        xor.b32 %r6, %r6, %r2;
        bra STEP;
        NEXT: add.u32 %r1, %r1, 1;
        bra TILE;
        END: ret;
        """,
        grid=2,
    )
    assert outer["iterations_per_warp"] == 2 * tiles
    assert inner["iterations_per_warp"] == 2 * tiles * steps
    assert inner["per_iteration"]["fp"] == 20
    assert inner["inside"] == outer["line"]


@pytest.mark.parametrize("seed", range(4))
def test_a_loop_that_mostly_waits(seed):
    """Warp 1 sees five steps of a slow warp 0."""
    profile = profiled(
        """
        mov.u32 %r9, step;
        mov.u32 %r2, 0;
        setp.ge.u32 %p1, %r0, 32;
        setp.eq.u32 %p3, %r0, 0;
        @%p3 st.volatile.shared.u32 [%r9], %r2;
        bar.sync 0;
        @%p1 bra SEE;
        STEP: add.u32 %r2, %r2, 1;
        mov.u32 %r1, 0;
        COUNT: add.u32 %r1, %r1, 1;
        setp.lt.u32 %p2, %r1, 300;
        @%p2 bra COUNT;
        @%p3 st.volatile.shared.u32 [%r9], %r2;
        setp.lt.u32 %p2, %r2, 5;
        @%p2 bra STEP;
        ret;
        SEE: add.u32 %r2, %r2, 1;
        WAIT: ld.volatile.shared.u32 %r3, [%r9];
        xor.b32 %r4, %r4, %r3;
        setp.lt.u32 %p4, %r3, %r2;
        @%p4 bra WAIT;
        setp.lt.u32 %p2, %r2, 5;
        @%p2 bra SEE;
        ret;
        """,
        block=64,
        before=".shared .align 4 .u32 step;",
        mode="random",
        seed=seed,
    )
    assert profile.as_dict()["failed_polls"] > 0
    (loop,) = profile.as_dict()["roles"][1]["loops"]
    assert loop["iterations_per_warp"] == 5
    assert loop["per_iteration"] == {"int": 2 + 2, "lds": 1, "ctrl": 1 + 1}


def test_warps_that_iterate_differently():
    """The mean of 3, 4, 5 and 6."""
    (loop,) = loops_of(
        f"""
        shr.u32 %r2, %r0, 5;
        add.u32 %r2, %r2, 3;
        mov.u32 %r1, 0;
        LOOP: {FMA * 20}
        add.u32 %r1, %r1, 1;
        setp.ge.u32 %p1, %r1, %r2;
        @%p1 bra END;
        xor.b32 %r6, %r6, %r2;
        bra LOOP;
        END: ret;
        """,
        block=128,
    )
    assert loop["iterations_per_warp"] == 4.5 and loop["per_iteration"]["fp"] == 20
