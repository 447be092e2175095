"""CTAs that wait for each other, barriers, deadlocks, determinism, and the machine's limits."""

import re

import numpy as np
import pytest

from ptx_emulator import Deadlock, EmulatorError, LimitError, Module

from .ptx_kernel import kernel, run

COUNT = """
    // All CTAs meet: more have to be resident than there are at first.
    setp.ne.u32 %p1, %r0, 0;
    @%p1 bra DONE;
    atom.acq_rel.gpu.global.add.u32 %r1, [%rd0], 1;
    mov.u32 %r2, %nctaid.x;
    SPIN:
    ld.acquire.gpu.global.u32 %r3, [%rd0];
    setp.lt.u32 %p2, %r3, %r2;
    @%p2 bra SPIN;
    DONE: ret;
"""


@pytest.mark.parametrize("ctas", [2, 20, 132])
def test_a_grid_barrier_gets_all_ctas_resident(ctas):
    y = np.zeros(1, np.uint32)
    module = Module(
        kernel("ld.param.u64 %rd0, [a0]; mov.u32 %r0, %tid.x;" + COUNT, ".param .u64 a0")
    )
    assert module.launch("k", ctas, 64, [y]).stats["max_resident"] == ctas
    assert y[0] == ctas


def test_more_ctas_than_the_machine_holds_cannot_meet():
    # 200 KB of shared memory: one CTA for each of 132 SMs.
    with pytest.raises(Deadlock) as raised:
        run(COUNT, np.zeros(1, np.uint32), grid=133, shared=200 << 10)
    assert "132 of 133 clusters started" in str(raised.value)


def test_without_need_few_ctas_are_resident():
    module = Module(kernel("ret;"))
    assert module.launch("k", 1000, 128, []).stats["max_resident"] <= 3


@pytest.mark.parametrize("space", ["global", "shared"])
def test_a_spin_on_what_nobody_will_write_is_a_deadlock(space):
    body = """
    .shared .align 4 .b32 s;
    mov.u32 %r1, 0;
    st.shared.u32 [s], %r1;
    SPIN:
    ld.volatile.SPACE.u32 %r1, [PLACE];
    add.u32 %r2, %r1, 5;
    setp.eq.u32 %p1, %r1, 0;
    @%p1 bra SPIN;
    ret;
    """
    body = body.replace("SPACE", space).replace("PLACE", "s" if space == "shared" else "%rd0")
    with pytest.raises(Deadlock) as raised:
        run(body, np.zeros(1, np.uint32), block=1)
    assert "change nothing" in str(raised.value) and "PTX line" in str(raised.value)


def test_a_spin_that_counts_in_local_memory_is_a_deadlock():
    """As nvcc -G makes it; what other warps can't see is no progress."""
    body = """
    .local .align 4 .b32 tries;
    mov.u32 %r2, 0;
    SPIN:
    st.local.u32 [tries], %r2;
    ld.acquire.gpu.global.u32 %r1, [%rd0];
    ld.local.u32 %r2, [tries];
    add.u32 %r2, %r2, 1;
    setp.eq.u32 %p1, %r1, 0;
    @%p1 bra SPIN;
    ret;
    """
    with pytest.raises(Deadlock, match="change nothing"):
        run(body, np.zeros(1, np.uint32), block=1)


def test_long_computing_is_no_deadlock():
    """Nothing is stored for 24 million instructions, while another warp polls for the result."""
    body = """
    setp.ge.u32 %p1, %r0, 32;
    mov.u32 %r1, 1; mov.u32 %r2, 0;
    @%p1 bra SPIN;
    COMPUTE:
    mad.lo.u32 %r1, %r1, 1664525, 1013904223;
    add.u32 %r2, %r2, 1;
    setp.lt.u32 %p2, %r2, 6000000;
    @%p2 bra COMPUTE;
    st.release.gpu.global.u32 [%rd0], %r1;
    ret;
    SPIN:
    ld.acquire.gpu.global.u32 %r2, [%rd0];
    setp.eq.u32 %p2, %r2, 0;
    @%p2 bra SPIN;
    ret;
    """
    out = run(body, np.zeros(1, np.uint32), block=33)
    a, c, value = 1, 0, 1  # of 6000000 steps, by doubling
    step_a, step_c, n = 1664525, 1013904223, 6000000
    while n:
        if n & 1:
            a, c = a * step_a % 2**32, (c * step_a + step_c) % 2**32
        step_a, step_c = step_a * step_a % 2**32, (step_c * step_a + step_c) % 2**32
        n >>= 1
    assert out[0] == (a * value + c) % 2**32


def test_lanes_of_a_warp_may_wait_for_each_other():
    # Lane 0 spins at a low pc on what lane 1 writes at a higher one.
    body = """
    .shared .align 4 .b32 s;
    setp.eq.u32 %p1, %r0, 0;
    @!%p1 bra OTHERS;
    SPIN:
    ld.volatile.global.u32 %r1, [%rd0];
    setp.eq.u32 %p2, %r1, 0;
    @%p2 bra SPIN;
    bra DONE;
    OTHERS:
    mov.u32 %r1, 1;
    setp.eq.u32 %p3, %r0, 1;
    @%p3 st.volatile.global.u32 [%rd0], %r1;
    DONE: ret;
    """
    assert run(body, np.zeros(1, np.uint32))[0] == 1


# -- Barriers of a CTA


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("form", ["bar.sync", "barrier.sync", "barrier.cta.sync.aligned"])
def test_barriers_with_counts_and_ids(form, seed):
    # Two teams of two warps, each with a barrier of its own, swap within the team.
    body = f"""
    .shared .align 4 .b8 s[512];
    mov.u32 %r9, s; shl.b32 %r8, %r0, 2; add.u32 %r8, %r8, %r9;
    shr.b32 %r1, %r0, 6; add.u32 %r2, %r1, 3;
    st.shared.u32 [%r8], %r0;
    {form} %r2, 64;
    xor.b32 %r4, %r0, 33; shl.b32 %r4, %r4, 2; add.u32 %r4, %r4, %r9;
    ld.shared.u32 %r5, [%r4];
    add.u64 %rd1, %rd0, %rd15; st.global.u32 [%rd1], %r5; ret;
    """
    y = run(body, np.zeros(128, np.uint32), block=128, seed=seed)
    assert (y == np.arange(128) ^ 33).all()


@pytest.mark.parametrize("seed", range(3))
def test_reductions_over_a_barrier(seed):
    body = """
    setp.lt.u32 %p1, %r0, 50;
    bar.red.popc.u32 %r1, 1, %p1;
    bar.red.popc.u32 %r2, 2, !%p1;
    bar.red.and.pred %p2, 1, %p1;
    bar.red.or.pred %p3, 1, %p1;
    setp.lt.u32 %p4, %r0, 96;
    bar.red.and.pred %p5, 3, %p4;
    shl.b32 %r2, %r2, 8; add.u32 %r1, %r1, %r2;
    @%p2 add.u32 %r1, %r1, 0x10000; @%p3 add.u32 %r1, %r1, 0x20000;
    @%p5 add.u32 %r1, %r1, 0x40000;
    add.u64 %rd1, %rd0, %rd15; st.global.u32 [%rd1], %r1; ret;
    """
    y = run(body, np.zeros(96, np.uint32), block=96, seed=seed)
    assert (y == 50 + (46 << 8) + 0x60000).all()


@pytest.mark.parametrize("block", [1, 33, 96, 127])
def test_barriers_of_partial_warps_and_exited_threads(block):
    body = """
    .shared .align 4 .b32 s;
    setp.eq.u32 %p1, %r0, 0;
    setp.gt.u32 %p2, %r0, 90;
    @%p2 exit;
    @%p1 st.shared.u32 [s], 7;
    bar.sync 0;
    ld.shared.u32 %r1, [s];
    add.u64 %rd1, %rd0, %rd15; st.global.u32 [%rd1], %r1; ret;
    """.replace("@%p1 st.shared.u32 [s], 7;", "mov.u32 %r3, 7; @%p1 st.shared.u32 [s], %r3;")
    for seed in range(4):
        y = run(body, np.zeros(block, np.uint32), block=block, seed=seed)
        assert (y == np.where(np.arange(block) > 90, 0, 7)).all()


def test_a_diverged_barrier_that_is_not_aligned():
    # Both sides of a branch have a barrier of their own; the forms without .aligned allow it.
    body = """
    .shared .align 4 .b8 s[256];
    mov.u32 %r9, s; shl.b32 %r8, %r0, 2; add.u32 %r8, %r8, %r9;
    st.shared.u32 [%r8], %r0;
    and.b32 %r1, %r0, 1; setp.eq.u32 %p1, %r1, 0;
    @%p1 bra EVEN;
    barrier.sync 0;
    bra DONE;
    EVEN:
    barrier.sync 0;
    DONE:
    xor.b32 %r4, %r0, 63; shl.b32 %r4, %r4, 2; add.u32 %r4, %r4, %r9;
    ld.shared.u32 %r5, [%r4];
    add.u64 %rd1, %rd0, %rd15; st.global.u32 [%rd1], %r5; ret;
    """
    for seed in range(4):
        y = run(body, np.zeros(64, np.uint32), block=64, seed=seed)
        assert (y == np.arange(64) ^ 63).all()
    with pytest.raises(Deadlock, match=r"bar\.sync"):
        run(body.replace("barrier.sync", "bar.sync"), np.zeros(64, np.uint32), block=64)


def test_a_barrier_that_a_warp_never_meets_says_who_is_missing():
    body = """
    setp.lt.u32 %p1, %r0, 64;
    @!%p1 bra OTHER;
    bar.sync 5, 96;
    ret;
    OTHER:
    bar.sync 6, 64;
    ret;
    """
    with pytest.raises(Deadlock) as raised:
        run(body.replace("6, 64", "6, 96"), block=128)
    text = str(raised.value)
    assert "barrier 5, where 64 of 96 threads have come" in text
    assert "barrier 6, where 64 of 96 threads have come" in text
    with pytest.raises(Deadlock, match="barrier 5, where warp 2 has not come"):
        run(body, block=96)
    with pytest.raises(Deadlock, match="barrier 0, where warp 2 has not come"):
        run(body.replace("5, 96", "0"), block=96)


MISUSES = {
    "bar.sync 16;": "barrier 16",
    "bar.sync 1, 40;": "a multiple of 32",
    "bar.sync 1, 0;": "a multiple of 32",
    "setp.lt.u32 %p1, %r0, 32; selp.b32 %r1, 64, 96, %p1; bar.sync 1, %r1;": "is used for",
    "barrier.cluster.wait;": "without an arrive",
    "barrier.cluster.arrive; barrier.cluster.arrive;": "without a wait",
}


@pytest.mark.parametrize("body", MISUSES)
def test_misuse_of_barriers(body):
    with pytest.raises(EmulatorError, match=MISUSES[body]):
        run(body + " ret;", block=96)


def test_a_cta_that_exits_while_others_read_its_shared_memory():
    body = """
    .shared .align 4 .b32 s;
    mov.u32 %r1, %cluster_ctarank; setp.eq.u32 %p1, %r1, 0;
    mov.u32 %r2, s; st.shared.u32 [%r2], %r1;
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
    @%p1 bra DONE;
    mov.u32 %r4, 0;
    LOOP: add.u32 %r4, %r4, 1; setp.lt.u32 %p2, %r4, 5000; @%p2 bra LOOP;
    mapa.shared::cluster.u32 %r3, %r2, 0; ld.shared::cluster.u32 %r5, [%r3];
    DONE: ret;
    """
    with pytest.raises(EmulatorError, match="has exited"):
        run(body, grid=2, cluster=2, block=32)


# -- Programmatic dependent launch, registers


def test_dependent_launch_of_a_first_kernel_waits_for_nothing():
    run("griddepcontrol.wait; griddepcontrol.launch_dependents; ret;")


REGISTERS = """
    setp.lt.u32 %p1, %r0, 128;
    @%p1 bra PRODUCER;
    setmaxnreg.inc.sync.aligned.u32 {more};
    ret;
    PRODUCER:
    setmaxnreg.dec.sync.aligned.u32 {less};
    ret;
"""


def test_registers_are_taken_from_what_others_give_up():
    # 384 threads start with 168 each: 128 give up 144, 256 may have 72 more.
    for seed in range(4):
        run(REGISTERS.format(more=240, less=24), block=384, seed=seed)
    with pytest.raises(Deadlock, match="registers that other warps are to give up"):
        run(REGISTERS.format(more=248, less=24), block=384)
    with pytest.raises(LimitError, match=r"setmaxnreg\.dec to 232 from 168"):
        run(REGISTERS.format(more=240, less=232), block=384)


# -- Determinism


def test_a_launch_that_takes_too_many_instructions_is_given_up():
    # Each round changes memory, so it is not stuck.
    body = """
    mov.u32 %r1, 0;
    LOOP:
    add.u32 %r1, %r1, 1;
    st.global.u32 [%rd0], %r1;
    setp.lt.u32 %p1, %r1, 1000;
    @%p1 bra LOOP;
    ret;
    """
    y = np.zeros(1, np.uint32)
    assert run(body, y, block=1, max_instructions=5000)[0] == 1000
    with pytest.raises(LimitError, match="k: more than 2000 warp instructions"):
        run(body, y, block=1, max_instructions=2000)


def test_the_same_seed_gives_the_same_bytes_and_counts():
    # The order of atomic operations shows in what they return.
    body = """
    atom.global.add.u32 %r1, [%rd0], 1;
    mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mad.lo.u32 %r4, %r2, %r3, %r0;
    mul.wide.u32 %rd3, %r4, 4; add.u64 %rd2, %rd1, %rd3;
    st.global.u32 [%rd2], %r1; ret;
    """

    def order(seed, mode):
        counter, y = np.zeros(1, np.uint32), np.zeros(512, np.uint32)
        run(body, counter, y, block=128, grid=4, seed=seed, mode=mode)
        return y.tobytes()

    seeds = {(s, m): order(s, m) for s in range(8) for m in ("eager", "random", "late")}
    assert all(order(s, m) == seeds[s, m] for s, m in seeds)
    assert len(set(seeds.values())) > 3


# -- Limits


@pytest.mark.parametrize(
    "options, text",
    [
        ({"block": 1025}, "1025, the limit is 1024"),
        ({"block": (32, 32, 2)}, "threads in a CTA: 2048, the limit is 1024"),
        ({"block": (1, 1, 65)}, "threads along z"),
        ({"grid": (1, 70000)}, "CTAs along y"),
        ({"shared": 233000}, "the limit is 232448"),
        ({"shared": 170000, "target": "sm_80"}, "the limit is 166912"),
        ({"grid": 6, "cluster": 4}, "no multiple of the cluster"),
        ({"grid": 34, "cluster": 17}, "CTAs in a cluster: 17, the limit is 16"),
        ({"grid": 2, "cluster": 2, "target": "sm_80"}, "CTAs in a cluster: 2, the limit is 1"),
    ],
)
def test_launches_that_ask_for_too_much(options, text):
    with pytest.raises(LimitError, match=re.escape(text)):
        run("ret;", **options)


def test_the_largest_launches_work():
    run("ret;", block=1024, shared=232448 - 1024)
    run("ret;", block=(16, 1, 64), grid=(2, 3, 4))


@pytest.mark.parametrize(
    "directives, options, text",
    [
        (".maxntid 64", {"block": 65}, "threads in a CTA (.maxntid)"),
        (".reqntid 64, 2", {"block": (64, 1)}, ".reqntid"),
        (".reqnctapercluster 2", {"grid": 2, "cluster": 1, "block": 32}, ".reqnctapercluster"),
        (".maxnreg 128", {"block": 1024}, ".maxnreg"),
    ],
)
def test_directives_are_held_to(directives, options, text):
    ptx = kernel("ret;").replace("k()", f"k() {directives}")
    launch = {"grid": 1, "block": 1, **options}
    with pytest.raises(LimitError, match=re.escape(text)):
        Module(ptx).launch("k", launch.pop("grid"), launch.pop("block"), [], **launch)


def test_special_registers():
    names = ["%tid.x", "%tid.y", "%tid.z", "%ntid.x", "%ntid.y", "%ntid.z", "%ctaid.x", "%ctaid.y",
             "%nctaid.x", "%nctaid.y", "%laneid", "%warpid", "%nwarpid", "%cluster_ctarank",
             "%cluster_nctarank", "%clusterid.x", "%nclusterid.x", "%cluster_ctaid.x",
             "%cluster_nctaid.x", "%lanemask_lt", "%lanemask_ge", "%dynamic_smem_size"]  # fmt: skip
    body = """
    mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ctaid.y; mov.u32 %r3, %nctaid.x;
    mad.lo.u32 %r1, %r2, %r3, %r1;
    mov.u32 %r4, %tid.y; mov.u32 %r5, %ntid.x; mad.lo.u32 %r4, %r4, %r5, %r0;
    mad.lo.u32 %r4, %r1, 40, %r4; mul.lo.u32 %r4, %r4, N; mul.wide.u32 %rd1, %r4, 4;
    add.u64 %rd1, %rd0, %rd1;
    """.replace("N;", f"{len(names)};")
    for i, n in enumerate(names):
        body += f"mov.u32 %r6, {n}; st.global.u32 [%rd1+{4 * i}], %r6;\n"
    y = np.zeros((3, 4, 4, 10, len(names)), np.uint32)  # ctaid.y, ctaid.x, tid.y, tid.x
    run(body + "ret;", y, grid=(4, 3), block=(10, 4), cluster=(2, 1), shared=64)
    for cy, cx, ty, tx in np.ndindex(y.shape[:-1]):
        lane = (ty * 10 + tx) % 32
        lower = (1 << lane) - 1
        expected = [tx, ty, 0, 10, 4, 1, cx, cy, 4, 3, lane, (ty * 10 + tx) // 32, 2, cx % 2, 2,
                    cx // 2, 2, cx % 2, 2, lower, ~lower & 0xFFFFFFFF, 64]  # fmt: skip
        assert y[cy, cx, ty, tx].tolist() == expected
