"""mbarrier objects: phases, counts, transactions, and their misuse."""

import numpy as np
import pytest

import ptx_emulator

from .ptx_text import INIT_DONE, MODES, module, only_thread, only_warp, pointer, wait

SHARED = ".shared .align 8 .b64 bar[4];\n.shared .align 16 .b32 box[64];\n"


def init(count: int, barrier: str = "bar") -> str:
    return only_thread(0, f"mbarrier.init.shared::cta.b64 [{barrier}], {count};") + INIT_DONE


def run(body, out=None, block=64, shared=SHARED, mode="eager", seed=0, **options):
    out = np.zeros(64, np.uint32) if out is None else out
    code = pointer("%rd1", "out") + body
    module(code, "u64 out", shared).launch("k", 1, block, [out], mode=mode, seed=seed, **options)
    return out


STORE_TID = """mov.u32 %r1, %tid.x;
mul.wide.u32 %rd2, %r1, 4;
add.s64 %rd2, %rd1, %rd2;
"""

# Warp 0 writes, warp 1 reads, in turn, over six rounds with two barriers.
PING_PONG = (
    only_thread(
        0, "mbarrier.init.shared::cta.b64 [bar], 32;\nmbarrier.init.shared::cta.b64 [bar+8], 32;"
    )
    + INIT_DONE
    + STORE_TID
    + """mov.u32 %r2, 0;
mov.u32 %r10, 0;
and.b32 %r3, %r1, 31;
shl.b32 %r4, %r3, 2;
mov.u32 %r5, box;
add.u32 %r5, %r5, %r4;
setp.ge.u32 %p1, %r1, 32;
LOOP:
and.b32 %r6, %r2, 1;
xor.b32 %r7, %r6, 1;
@%p1 bra READ;
"""
    + wait("bar+8", "%r7")
    + """mad.lo.u32 %r8, %r2, 100, %r3;
st.shared.u32 [%r5], %r8;
mbarrier.arrive.shared::cta.b64 %rd9, [bar];
bra NEXT;
READ:
"""
    + wait("bar", "%r6")
    + """ld.shared.u32 %r9, [%r5];
add.u32 %r10, %r10, %r9;
mbarrier.arrive.shared::cta.b64 %rd9, [bar+8];
NEXT:
add.u32 %r2, %r2, 1;
setp.lt.u32 %p2, %r2, 6;
@%p2 bra LOOP;
st.global.u32 [%rd2], %r10;
"""
)


@pytest.mark.parametrize("mode,seed", MODES)
def test_ping_pong(mode, seed):
    out = run(PING_PONG, mode=mode, seed=seed)
    assert (out[32:] == 1500 + 6 * np.arange(32)).all() and (out[:32] == 0).all()


@pytest.mark.parametrize("suspends", [True, False])
def test_waiting_by_state(suspends):
    op = "try_wait" if suspends else "test_wait"
    body = (
        init(64)
        + STORE_TID
        + f"""
mbarrier.arrive.release.cta.shared::cta.b64 %rd5, [bar];
W: mbarrier.{op}.shared::cta.b64 %p1, [bar], %rd5;
@!%p1 bra W;
mbarrier.arrive.shared::cta.b64 %rd6, [bar];
mbarrier.pending_count.b64 %r6, %rd6;
V: mbarrier.{op}.shared::cta.b64 %p1, [bar], %rd6;
@!%p1 bra V;
mbarrier.test_wait.shared::cta.b64 %p2, [bar], %rd6;
selp.u32 %r7, %r6, 1000, %p2;
st.global.u32 [%rd2], %r7;
"""
    )
    out = run(body)
    assert sorted(out) == list(range(1, 65))  # arrivals that were pending before each


def test_counts_and_drops():
    """40 of 64 threads drop out in the first phase; the second needs the other 24."""
    body = (
        init(64)
        + STORE_TID
        + """
setp.lt.u32 %p1, %r1, 40;
@%p1 mbarrier.arrive_drop.shared::cta.b64 %rd5, [bar];
@!%p1 mbarrier.arrive.shared::cta.b64 %rd5, [bar];
"""
        + wait("bar", 0)
        + """
bar.sync 0;
@%p1 bra OUT;
mbarrier.arrive.shared::cta.b64 %rd5, [bar];
"""
        + wait("bar", 1)
        + """st.global.u32 [%rd2], 7;
OUT:
"""
    )
    out = run(body)
    assert (out == np.where(np.arange(64) < 40, 0, 7)).all()


def test_arrive_with_a_count():
    body = init(64) + STORE_TID + only_thread(3, "mbarrier.arrive.shared::cta.b64 %rd5, [bar], 64;")
    body += wait("bar", 0) + "st.global.u32 [%rd2], 1;"
    assert (run(body) == 1).all()


def test_transactions_may_come_first():
    """complete_tx before expect_tx leaves the count negative for a while."""
    body = init(2) + STORE_TID
    body += only_thread(0, "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [bar], 96;")
    body += "bar.sync 0;" + only_thread(0, "mbarrier.arrive.shared::cta.b64 %rd5, [bar];")
    body += only_thread(32, "mbarrier.arrive.expect_tx.shared::cta.b64 %rd5, [bar], 96;")
    body += wait("bar", 0) + "st.global.u32 [%rd2], 1;"
    assert (run(body) == 1).all()


def test_expect_tx_keeps_the_phase_open():
    body = init(1) + only_thread(0, "mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 16;")
    with pytest.raises(ptx_emulator.Deadlock):
        run(body + wait("bar", 0))


FAULTS = {
    "never initialised": ("no mbarrier", "mbarrier.arrive.shared::cta.b64 %rd5, [bar+8];"),
    "waiting for nothing": ("no mbarrier", wait("bar+8", 0)),
    "misaligned": ("multiple of 8", "mbarrier.arrive.shared::cta.b64 %rd5, [bar+4];"),
    "overwritten": (
        "overwritten",
        "st.shared.u32 [bar+4], 1;\nmbarrier.arrive.shared::cta.b64 %rd5, [bar];",
    ),
    "too many arrivals": (
        "more than it waits for",
        "mbarrier.arrive.shared::cta.b64 %rd5, [bar], 65;",
    ),
    "count of 0": ("1 .. 2^20 - 1", "mbarrier.init.shared::cta.b64 [bar+8], 0;"),
    "initialised twice": ("again", "mbarrier.init.shared::cta.b64 [bar], 64;"),
    "after inval": (
        "no mbarrier",
        "mbarrier.inval.shared::cta.b64 [bar];\nmbarrier.arrive.shared::cta.b64 %rd5, [bar];",
    ),
    "noComplete that completes": (
        "noComplete",
        "mbarrier.arrive.noComplete.shared::cta.b64 %rd5, [bar], 64;",
    ),
    "bytes": ("2^20", "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [bar], 1048576;"),
    "old state": (
        "neither",
        "mbarrier.arrive.shared::cta.b64 %rd5, [bar], 64;\n"
        "mbarrier.arrive.shared::cta.b64 %rd6, [bar], 64;\n"
        "mbarrier.test_wait.shared::cta.b64 %p1, [bar], %rd5;",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name):
    said, body = FAULTS[name]
    with pytest.raises(ptx_emulator.EmulatorError, match=said.replace("^", r"\^")):
        run(init(64) + only_thread(0, body))


def test_inval_frees_the_place():
    body = init(64) + only_thread(
        0, "mbarrier.inval.shared::cta.b64 [bar];\nmbarrier.init.shared::cta.b64 [bar], 3;"
    )
    run(body)


@pytest.mark.parametrize("parity", [0, 1])
def test_wrong_parity_waits_for_ever(parity):
    """Before any arrival the phase before, of parity 1, counts as complete."""
    body = init(64) + wait("bar", parity)
    if parity:
        run(body)
    else:
        with pytest.raises(ptx_emulator.Deadlock):
            run(body)


def test_remote_arrival():
    """Both CTAs of a cluster arrive on the barrier of rank 0."""
    body = (
        pointer("%rd1", "out")
        + only_thread(0, "mbarrier.init.shared::cta.b64 [bar], 2;")
        + """fence.mbarrier_init.release.cluster;
barrier.cluster.arrive.aligned;
barrier.cluster.wait.aligned;
"""
        + only_thread(
            0,
            """mov.u32 %r5, bar;
mapa.shared::cluster.u32 %r6, %r5, 0;
mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r6];
""",
        )
        + """mov.u32 %r7, %cluster_ctarank;
setp.ne.u32 %p3, %r7, 0;
@%p3 bra END;
"""
        + wait("bar", 0)
        + """st.global.u32 [%rd1], 5;
END:
barrier.cluster.arrive.aligned;
barrier.cluster.wait.aligned;
"""
    )
    out = np.zeros(1, np.uint32)
    for mode, seed in MODES:
        out[:] = 0
        module(body, "u64 out", SHARED).launch("k", 2, 32, [out], cluster=2, mode=mode, seed=seed)
        assert out[0] == 5


def test_waiting_for_another_cta_is_refused():
    body = (
        only_thread(0, "mbarrier.init.shared::cta.b64 [bar], 1;")
        + """
barrier.cluster.arrive.aligned;
barrier.cluster.wait.aligned;
mov.u32 %r5, bar;
mapa.shared::cluster.u32 %r6, %r5, 1;
mbarrier.test_wait.parity.shared::cta.b64 %p1, [%r6], 0;
barrier.cluster.arrive.aligned;
barrier.cluster.wait.aligned;
"""
    )
    with pytest.raises(ptx_emulator.MemoryFault, match="own CTA"):
        module(body, "", SHARED).launch("k", 2, 32, [], cluster=2)


@pytest.mark.parametrize("mode,seed", MODES)
def test_a_missing_wait_is_a_race(mode, seed):
    for which, free in (("bar", "%r6"), ("bar+8", "%r7")):
        op = f"mbarrier.try_wait.parity.shared::cta.b64 %p39, [{which}], {free};"
        assert op in PING_PONG
        body = PING_PONG.replace(op, "setp.eq.u32 %p39, %r7, %r7;")
        # A writer that does not wait may also run phases ahead of the reader.
        kinds = (ptx_emulator.Race, ptx_emulator.Deadlock) if free == "%r7" else ptx_emulator.Race
        with pytest.raises(kinds):
            run(body, mode=mode, seed=seed)


def test_try_wait_may_give_up():
    """Whoever does not look at its result has not waited; late mode shows it."""
    body = PING_PONG.replace("@%p39 bra", "bra")
    with pytest.raises(ptx_emulator.Race):
        run(body, mode="late")


def test_initialisation_must_be_seen():
    """Nothing orders the initialisation before the other warp's use."""
    body = only_thread(0, "mbarrier.init.shared::cta.b64 [bar], 2;\nst.shared.u32 [box], 1;")
    body += only_warp(
        1, "Z: ld.volatile.shared.u32 %r4, [box+4];\nmbarrier.arrive.shared::cta.b64 %rd5, [bar];"
    )
    with pytest.raises(ptx_emulator.EmulatorError):
        run(body)
