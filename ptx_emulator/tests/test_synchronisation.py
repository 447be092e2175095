"""What real kernels rely on and what is easily taken for a mistake."""

import numpy as np
import pytest

import ptx_emulator

from .ptx_text import INIT_DONE, MODES, aligned, label, module, only_thread, pointer, wait

modes = pytest.mark.parametrize("mode, seed", MODES)
SHARED = ".shared .align 128 .b8 data[1024];\n.shared .align 8 .b64 bar[4];\n"
COPY = (
    "mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 512;\n"
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [data], [%rd1], 512, [bar];"
)
STORE = """mov.u32 %r1, %tid.x;
mul.wide.u32 %rd3, %r1, 4;
add.s64 %rd3, %rd2, %rd3;
shl.b32 %r2, %r1, 2;
mov.u32 %r3, data;
add.u32 %r3, %r3, %r2;
ld.shared.u32 %r4, [%r3];
st.global.u32 [%rd3], %r4;
"""


def run(body, params, args, block=128, directives="", grid=1, **options):
    module(body, params, SHARED, directives).launch("k", grid, block, args, **options)


def copied_through(waits, mode, seed):
    """128 threads read what thread 0 has copied, each behind its `waits`."""
    given, out = aligned(128, np.uint32), np.zeros(128, np.uint32)
    given[:] = np.arange(128) * 7 + 1
    body = (
        pointer("%rd1", "in")
        + pointer("%rd2", "out")
        + only_thread(0, "mbarrier.init.shared::cta.b64 [bar], 1;")
        + INIT_DONE
        + only_thread(0, COPY)
        + waits
        + STORE
    )
    run(body, "u64 in, u64 out", [given, out], mode=mode, seed=seed)
    np.testing.assert_array_equal(out, given)


@modes
def test_one_lane_waits_for_all(mode, seed):
    copied_through(only_thread(64, wait("bar", 0)) + "bar.sync 0;\n", mode, seed)


@modes
def test_a_loop_of_test_wait_sees_a_copy_arrive(mode, seed):
    copied_through(wait("bar", 0, suspends=False), mode, seed)


@modes
def test_a_flag_that_another_warp_raises(mode, seed):
    """One warp spins on a flag in global memory while what another waits for is still under way."""
    loop = label()
    given, out = aligned(128, np.uint32, 5), np.zeros(128, np.uint32)
    flag = np.zeros(1, np.uint32)
    body = (
        pointer("%rd1", "in")
        + pointer("%rd2", "out")
        + pointer("%rd4", "flag")
        + only_thread(0, "mbarrier.init.shared::cta.b64 [bar], 1;")
        + INIT_DONE
        + only_thread(0, COPY + wait("bar", 0) + "st.release.gpu.global.u32 [%rd4], 1;")
        + f"""{loop}:
ld.acquire.gpu.global.u32 %r5, [%rd4];
setp.eq.u32 %p1, %r5, 0;
@%p1 bra {loop};
"""
        + STORE
    )
    run(body, "u64 in, u64 out, u64 flag", [given, out, flag], mode=mode, seed=seed)
    np.testing.assert_array_equal(out, given)


def test_who_waits_when_a_phase_ends_has_waited_for_it():
    """A slow waiter: 30 phases go by, two by two, while others than it let them end."""
    body = (
        pointer("%rd2", "out")
        + only_thread(0, "mbarrier.init.shared::cta.b64 [bar], 1;")
        + INIT_DONE
        + "mov.u32 %r1, %tid.x;\nsetp.ge.u32 %p1, %r1, 32;\n@%p1 bra SLOW;\n"
        # Warp 0 ends a phase, and the next one at once.
        + only_thread(0, "mbarrier.arrive.shared::cta.b64 _, [bar];\n" * 2)
        + "bra DONE;\nSLOW:\n"
        + wait("bar", 0)
        + only_thread(32, "st.global.u32 [%rd2], 1;")
        + "DONE:\n"
    )
    # Whether warp 1 comes to wait in time is for the schedule to say. If it does, it must go on.
    went_on = 0
    for seed in range(40):
        out = np.zeros(1, np.uint32)
        try:
            run(body, "u64 out", [out], block=64, mode="eager", seed=seed)
            went_on += 1
            assert out[0] == 1
        except ptx_emulator.Deadlock as deadlock:
            assert "phase 2" in str(deadlock)
    assert went_on > 0


@modes
def test_the_last_one_resets_the_counter(mode, seed):
    """Its plain store comes behind the others' atomics, which its own has observed."""
    counter, out = np.zeros(1, np.uint32), np.zeros(1, np.uint32)
    body = (
        pointer("%rd1", "counter")
        + pointer("%rd2", "out")
        + only_thread(
            0,
            """atom.global.add.u32 %r5, [%rd1], 1;
setp.ne.u32 %p1, %r5, 7;
@%p1 bra NOT_LAST;
st.global.u32 [%rd1], 0;
st.global.u32 [%rd2], 1;
NOT_LAST:
""",
        )
    )
    run(body, "u64 counter, u64 out", [counter, out], 32, grid=8, mode=mode, seed=seed)
    assert counter[0] == 0 and out[0] == 1


def test_a_reset_by_one_that_is_not_last_is_a_race():
    counter = np.zeros(1, np.uint32)
    code = "atom.global.add.u32 %r5, [%rd1], 1;\nst.global.u32 [%rd1], 0;"
    body = pointer("%rd1", "counter") + only_thread(0, code)
    with pytest.raises(ptx_emulator.Race):
        run(body, "u64 counter", [counter], 32, grid=8)


@modes
@pytest.mark.parametrize("fence", ["fence.mbarrier_init.release.cluster;", ""])
def test_a_relaxed_cluster_barrier_behind_initialisation(fence, mode, seed):
    """It passes on nothing but what a fence has flushed: here the mbarrier's initialisation."""
    body = (
        only_thread(0, f"mbarrier.init.shared::cta.b64 [bar], 64;\n{fence}")
        + "barrier.cluster.arrive.relaxed;\nbarrier.cluster.wait.acquire;\n"
        + "mbarrier.arrive.shared::cta.b64 _, [bar];\n"
        + wait("bar", 0)
    )
    options = {"block": 64, "directives": ".reqnctapercluster 1", "mode": mode, "seed": seed}
    if fence:
        run(body, "", [], **options)
    else:
        with pytest.raises(ptx_emulator.Race, match="initialisation"):
            run(body, "", [], **options)


@modes
def test_one_thread_of_a_warpgroup_releases_what_wgmma_reads(mode, seed):
    """A wgmma-group is the warpgroup's: who has waited for it has waited for all four warps."""
    descriptor = 1 << 16 | (1024 >> 4) << 32 | 1 << 62
    accumulator = ", ".join(f"%f{i}" for i in range(4))
    body = (
        only_thread(0, "mbarrier.init.shared::cta.b64 [bar], 1;")
        + INIT_DONE
        + f"""mov.u32 %r1, %tid.x;
mov.u32 %r2, tiles;
shl.b32 %r3, %r1, 4;
add.u32 %r3, %r2, %r3;
mov.u32 %r4, 0;
setp.ge.u32 %p1, %r1, 128;
@%p1 bra REFILL;
FILL:
mad.lo.u32 %r6, %r4, 2048, %r3;
st.shared.v4.u32 [%r6], {{%r4, %r4, %r4, %r4}};
add.u32 %r4, %r4, 1;
setp.lt.u32 %p2, %r4, 6;
@%p2 bra FILL;
fence.proxy.async.shared::cta;
bar.sync 1, 128;
shr.u32 %r5, %r2, 4;
cvt.u64.u32 %rd5, %r5;
or.b64 %rd5, %rd5, {descriptor};
add.s64 %rd6, %rd5, 512;
{"".join(f"mov.f32 %f{i}, 0f00000000;" for i in range(4))}
wgmma.fence.sync.aligned;
wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {{{accumulator}}}, %rd5, %rd6, 1, 1, 1, 0, 0;
wgmma.commit_group.sync.aligned;
wgmma.wait_group.sync.aligned 0;
"""
        + only_thread(96, "mbarrier.arrive.shared::cta.b64 _, [bar];")
        + "bra DONE;\nREFILL:\n"
        + wait("bar", 0)
        + """and.b32 %r7, %r1, 31;
shl.b32 %r7, %r7, 4;
add.u32 %r7, %r2, %r7;
mov.u32 %r8, 1;
st.shared.v4.u32 [%r7+8192], {%r8, %r8, %r8, %r8};
DONE:
"""
    )
    shared = ".shared .align 1024 .b8 tiles[12288];\n.shared .align 8 .b64 bar[1];\n"
    module(body, "", shared).launch("k", 1, 160, [], mode=mode, seed=seed)


@modes
def test_lanes_that_stored_nothing_wait_for_those_that_did(mode, seed):
    """Lane 0 stores, its whole warp waits, and another warp writes where the store has read."""
    out = aligned(128, np.uint32)
    body = (
        pointer("%rd2", "out")
        + """mov.u32 %r1, %tid.x;
mov.u32 %r3, data;
shl.b32 %r2, %r1, 4;
add.u32 %r4, %r3, %r2;
setp.ge.u32 %p1, %r1, 32;
@%p1 bra READY;
st.shared.v4.u32 [%r4], {%r1, %r1, %r1, %r1};
fence.proxy.async.shared::cta;
bar.warp.sync -1;
"""
        + only_thread(
            0,
            "cp.async.bulk.global.shared::cta.bulk_group [%rd2], [data], 512;\n"
            "cp.async.bulk.commit_group;",
        )
        + """bar.warp.sync -1;
cp.async.bulk.wait_group.read 0;
READY:
bar.sync 0;
setp.lt.u32 %p1, %r1, 32;
@%p1 bra DONE;
add.u32 %r4, %r4, -512;
st.shared.v4.u32 [%r4], {%r3, %r3, %r3, %r3};
DONE:
"""
    )
    run(body, "u64 out", [out], 64, mode=mode, seed=seed)
    np.testing.assert_array_equal(out, np.repeat(np.arange(32), 4))


@modes
def test_lanes_that_copied_nothing_wait_for_those_that_did(mode, seed):
    given, out = aligned(128, np.uint32), np.zeros(128, np.uint32)
    given[:] = np.arange(128) + 3
    body = (
        pointer("%rd1", "in")
        + pointer("%rd2", "out")
        + """mov.u32 %r1, %tid.x;
setp.ge.u32 %p1, %r1, 16;
mul.wide.u32 %rd3, %r1, 32;
add.s64 %rd3, %rd1, %rd3;
shl.b32 %r2, %r1, 5;
mov.u32 %r3, data;
add.u32 %r3, %r3, %r2;
@%p1 bra WAIT;
cp.async.cg.shared.global [%r3], [%rd3], 16;
cp.async.cg.shared.global [%r3+16], [%rd3+16], 16;
cp.async.commit_group;
WAIT:
cp.async.wait_group 0;
bar.sync 0;
"""
        + STORE
    )
    run(body, "u64 in, u64 out", [given, out], mode=mode, seed=seed)
    np.testing.assert_array_equal(out, given)


def test_blanks_before_modifiers():
    """CUTLASS writes them."""
    given, out = np.array([3, 4], np.uint32), np.zeros(2, np.uint32)
    body = pointer("%rd1", "in") + pointer("%rd2", "out")
    body += "ld.global .v2 .u32 {%r1, %r2}, [%rd1];\nst.global .v2.u32 [%rd2], {%r1, %r2};\n"
    run(body, "u64 in, u64 out", [given, out], 32)
    np.testing.assert_array_equal(out, given)


SWAP = """setp.lt.u32 %p1, %r1, 64;
xor.b32 %r4, %r1, 32;
shl.b32 %r4, %r4, 2;
mov.u32 %r5, data;
add.u32 %r4, %r4, %r5;
"""


@modes
@pytest.mark.parametrize("order", ["", "bar.sync 0;", "bar.sync 2, 128;"])
def test_teams_that_share_a_barrier_take_turns(order, mode, seed):
    """Two warps each swap words at barrier 1: if nothing makes the others wait, a warp of either
    team may be counted for the other."""
    swap = "st.shared.u32 [%r3], %r1;\nbar.sync 1, 64;\nld.shared.u32 %r4, [%r4];\n"
    body = STORE.partition("ld.shared")[0] + SWAP
    body += f"@!%p1 bra SECOND;\n{swap}{order}\nbra END;\nSECOND:\n{order}\n{swap}END:\n"
    body = pointer("%rd2", "out") + body + "st.global.u32 [%rd3], %r4;\n"
    out = aligned(128, np.uint32)
    if order:
        run(body, "u64 out", [out], mode=mode, seed=seed)
        assert (out == np.arange(128) ^ 32).all()
    else:
        with pytest.raises(ptx_emulator.Race):
            run(body, "u64 out", [out], mode=mode, seed=seed)


@modes
def test_teams_that_meet_at_a_barrier_in_turn(mode, seed):
    """A warp waits at a barrier where another arrives each time, ordered by a chain of such."""
    body = """mov.u32 %r1, %tid.x;
shr.u32 %r2, %r1, 5;
add.u32 %r3, %r2, 1;
rem.u32 %r3, %r3, 3;
setp.eq.u32 %p1, %r2, 0;
shl.b32 %r7, %r1, 2;
mov.u32 %r8, data;
add.u32 %r7, %r7, %r8;
mov.u32 %r4, 0;
@%p1 bar.arrive 4, 64;
LOOP:
st.shared.u32 [%r7], %r4;
add.u32 %r5, %r2, 4;
add.u32 %r6, %r3, 4;
bar.sync %r5, 64;
bar.arrive %r6, 64;
add.u32 %r4, %r4, 1;
setp.lt.u32 %p2, %r4, 5;
@%p2 bra LOOP;
@%p1 bar.sync 4, 64;
"""
    run(body, "", [], block=96, mode=mode, seed=seed)
