"""cp.async with groups and mbarriers, bulk copies and reductions, st.async."""

import contextlib

import numpy as np
import pytest

import ptx_emulator

from .ptx_text import INIT_DONE, MODES, aligned, module, only_thread, only_warp, pointer, wait

SHARED = ".shared .align 8 .b64 bar[4];\n.shared .align 128 .b8 box[4096];\n"


def launch(body, params, args, mode="eager", seed=0, block=32, grid=1, **options):
    code = "".join(pointer(f"%rd{i + 1}", p.split()[1]) for i, p in enumerate(params.split(",")))
    loaded = module(code + body, params, SHARED)
    return loaded.launch("k", grid, block, args, mode=mode, seed=seed, **options)


# A thread's 16 bytes of the input (%rd10), output (%rd11) and shared memory (%r2).
PLACES = """mov.u32 %r1, %tid.x;
shl.b32 %r2, %r1, 4;
cvt.u64.u32 %rd12, %r2;
add.s64 %rd10, %rd1, %rd12;
add.s64 %rd11, %rd2, %rd12;
mov.u32 %r3, box;
add.u32 %r2, %r2, %r3;
"""
LOAD_BACK = """ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [%r2];
st.global.v4.u32 [%rd11], {%r4, %r5, %r6, %r7};
"""


def data(n=512, seed=0):
    return aligned(n, np.uint8, np.random.default_rng(seed).integers(0, 256, n))


@pytest.mark.parametrize("mode,seed", MODES)
def test_cp_async_with_groups(mode, seed):
    """Sizes 4, 8 and 16, zero filling by size and by predicate, in four groups."""
    given, out = data(), aligned(512, np.uint8)
    body = (
        PLACES
        + """and.b32 %r8, %r1, 3;
setp.eq.u32 %p1, %r8, 1;
cp.async.ca.shared.global [%r2], [%rd10], 4;
cp.async.commit_group;
cp.async.ca.shared::cta.global.L2::128B [%r2+4], [%rd10+4], 4, %r8;
cp.async.commit_group;
cp.async.ca.shared.global [%r2+8], [%rd10+8], 8, %p1;
cp.async.commit_group;
cp.async.wait_group 2;
ld.shared.u32 %r4, [%r2];
cp.async.wait_group 1;
ld.shared.u32 %r5, [%r2+4];
cp.async.wait_all;
ld.shared.v2.u32 {%r6, %r7}, [%r2+8];
st.global.v4.u32 [%rd11], {%r4, %r5, %r6, %r7};
"""
    )
    launch(body, "u64 in, u64 out", [given, out], mode, seed)
    expected = given.reshape(32, 16).copy()
    for lane in range(32):
        expected[lane, 4 + lane % 4 : 8] = 0
        if lane % 4 == 1:
            expected[lane, 8:] = 0
    np.testing.assert_array_equal(out.reshape(32, 16), expected)


@pytest.mark.parametrize("mode,seed", MODES)
@pytest.mark.parametrize("noinc", ["", ".noinc"])
def test_cp_async_with_mbarrier(mode, seed, noinc):
    """Without .noinc the arrival is counted before it is made, so nobody else's is missed."""
    given, out = data(1024), aligned(1024, np.uint8)
    count = 64 if noinc else 1
    body = (
        only_thread(0, f"mbarrier.init.shared::cta.b64 [bar], {count};")
        + INIT_DONE
        + PLACES
        + f"""cp.async.cg.shared.global [%r2], [%rd10], 16;
cp.async.mbarrier.arrive{noinc}.shared::cta.b64 [bar];
"""
        + (
            ""
            if noinc
            else "bar.sync 0;" + only_thread(5, "mbarrier.arrive.shared::cta.b64 _, [bar];")
        )
        + wait("bar", 0)
        + """xor.b32 %r2, %r1, 32;
shl.b32 %r2, %r2, 4;
add.u32 %r2, %r2, %r3;
"""
        + LOAD_BACK
    )
    launch(body, "u64 in, u64 out", [given, out], mode, seed, block=64)
    np.testing.assert_array_equal(out.reshape(2, -1), given.reshape(2, -1)[::-1])


@pytest.mark.parametrize("mode,seed", MODES)
@pytest.mark.parametrize("missing", ["wait", "commit", "one group too many"])
def test_cp_async_not_waited_for(mode, seed, missing):
    waits = {"wait": "cp.async.commit_group;", "commit": "cp.async.wait_group 0;"}.get(
        missing, "cp.async.commit_group;\ncp.async.wait_group 1;"
    )
    body = PLACES + "cp.async.cg.shared.global [%r2], [%rd10], 16;\n" + waits + LOAD_BACK
    with pytest.raises(ptx_emulator.Race):
        launch(body, "u64 in, u64 out", [data(), aligned(512, np.uint8)], mode, seed)


def test_cp_async_waits_for_own_copies_only():
    """Others' copies need a barrier behind the wait."""
    body = (
        PLACES
        + """cp.async.cg.shared.global [%r2], [%rd10], 16;
cp.async.wait_all;
{}
xor.b32 %r2, %r1, 32;
shl.b32 %r2, %r2, 4;
add.u32 %r2, %r2, %r3;
"""
        + LOAD_BACK
    )
    args = [data(1024), aligned(1024, np.uint8)]
    launch(body.replace("{}", "bar.sync 0;"), "u64 in, u64 out", args, block=64)
    np.testing.assert_array_equal(args[1].reshape(2, -1), args[0].reshape(2, -1)[::-1])
    with pytest.raises((ptx_emulator.Race, ptx_emulator.MemoryFault)):
        launch(body.replace("{}", ""), "u64 in, u64 out", args, block=64)


@pytest.mark.parametrize(
    "text,said",
    [
        ("cp.async.ca.shared.global [%r2+4], [%rd10], 8;", "multiple"),
        ("cp.async.ca.shared.global [%r2], [%rd10+2], 4;", "multiple"),
        ("cp.async.cg.shared.global [%r2+4096], [%rd10], 16;", "outside"),
        ("cp.async.cg.shared.global [%r2], [%rd10+65536], 16;", "memory|end"),
        ("mov.u32 %r9, 17;\ncp.async.cg.shared.global [%r2], [%rd10], 16, %r9;", "17"),
    ],
)
def test_cp_async_faults(text, said):
    with pytest.raises(ptx_emulator.MemoryFault, match=said):
        launch(PLACES + text, "u64 in, u64 out", [data(), aligned(512, np.uint8)])


def bulk_load(size=512, expected=None, before="", after=""):
    return (
        only_thread(0, "mbarrier.init.shared::cta.b64 [bar], 1;")
        + INIT_DONE
        + PLACES
        + before
        + only_thread(
            0,
            f"""mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], {expected or size};
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
    [%r3], [%rd1], {size}, [bar];""",
        )
        + after
    )


@pytest.mark.parametrize("mode,seed", MODES)
def test_bulk_load(mode, seed):
    given, out = data(), aligned(512, np.uint8)
    launch(bulk_load(after=wait("bar", 0) + LOAD_BACK), "u64 in, u64 out", [given, out], mode, seed)
    np.testing.assert_array_equal(out, given)


@pytest.mark.parametrize("mode,seed", MODES)
def test_bulk_load_not_waited_for(mode, seed):
    with pytest.raises(ptx_emulator.Race):
        launch(
            bulk_load(after=LOAD_BACK),
            "u64 in, u64 out",
            [data(), aligned(512, np.uint8)],
            mode,
            seed,
        )


@pytest.mark.parametrize("mode,seed", MODES)
@pytest.mark.parametrize("expected", [496, 528])
def test_wrong_expected_bytes(mode, seed, expected):
    body = bulk_load(expected=expected, after=wait("bar", 0) + LOAD_BACK)
    with pytest.raises((ptx_emulator.Deadlock, ptx_emulator.Race)):
        launch(body, "u64 in, u64 out", [data(), aligned(512, np.uint8)], mode, seed)


@pytest.mark.parametrize("mode,seed", MODES)
@pytest.mark.parametrize("fence", [True, False])
def test_overwriting_what_was_stored_to_needs_a_proxy_fence(mode, seed, fence):
    """Generic stores to the landing zone, then a bulk copy over them."""
    before = "st.shared.u32 [%r2], 1;\n" + ("fence.proxy.async.shared::cta;\n" if fence else "")
    body = bulk_load(before=before + "bar.sync 0;\n", after=wait("bar", 0) + LOAD_BACK)
    args = [data(), aligned(512, np.uint8)]
    if fence:
        launch(body, "u64 in, u64 out", args, mode, seed)
        np.testing.assert_array_equal(args[1], args[0])
    else:
        with pytest.raises(ptx_emulator.Race, match=r"fence\.proxy\.async"):
            launch(body, "u64 in, u64 out", args, mode, seed)


def store_back(copy, fence="fence.proxy.async.shared::cta;", waits=None, after=""):
    waits = "cp.async.bulk.wait_group.read 0;" if waits is None else waits
    return (
        PLACES
        + f"""ld.global.v4.u32 {{%r4, %r5, %r6, %r7}}, [%rd10];
st.shared.v4.u32 [%r2], {{%r4, %r5, %r6, %r7}};
{fence}
bar.sync 0;
"""
        + only_thread(0, f"{copy}\ncp.async.bulk.commit_group;\n{waits}")
        + after
    )


BULK_STORE = "cp.async.bulk.global.shared::cta.bulk_group [%rd2], [%r3], 512;"


@pytest.mark.parametrize("mode,seed", MODES)
def test_bulk_store(mode, seed):
    given, out = data(), aligned(512, np.uint8)
    launch(store_back(BULK_STORE), "u64 in, u64 out", [given, out], mode, seed)
    np.testing.assert_array_equal(out, given)


@pytest.mark.parametrize("mode,seed", MODES)
def test_bulk_store_faults(mode, seed):
    args = [data(), aligned(512, np.uint8)]

    def run(*, said, kind=ptx_emulator.Race, **changes):
        with pytest.raises(kind, match=said):
            launch(store_back(BULK_STORE, **changes), "u64 in, u64 out", args, mode, seed)

    run(fence="", said="fence.proxy.async")
    # Overwriting the source before it has been read.
    run(waits="st.shared.u32 [%r3], 0;", said=" ")
    # Reading the result when only the source has been read.
    run(waits="cp.async.bulk.wait_group.read 0;\nld.global.u32 %r9, [%rd2];", said=" ")
    run(waits="cp.async.bulk.wait_group 1;\nst.shared.u32 [%r3], 0;", said=" ")


@pytest.mark.parametrize("mode,seed", MODES)
def test_bulk_store_waited_for(mode, seed):
    args = [data(), aligned(512, np.uint8)]
    waits = "cp.async.bulk.wait_group 0;\nld.global.u32 %r9, [%rd2];\nst.global.u32 [%rd2], %r9;"
    launch(store_back(BULK_STORE, waits=waits), "u64 in, u64 out", args, mode, seed)
    np.testing.assert_array_equal(args[1], args[0])


def as_bf16(x):
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


REDUCTIONS = [
    ("add.u32", np.uint32, lambda a, b: a + b),
    ("add.s64", np.int64, lambda a, b: a + b),
    ("add.f32", np.float32, lambda a, b: a + b),
    ("add.f64", np.float64, lambda a, b: a + b),
    ("add.noftz.f16", np.float16, lambda a, b: a + b),
    ("min.s32", np.int32, np.minimum),
    ("max.u64", np.uint64, np.maximum),
    ("max.f16", np.float16, np.fmax),
    ("and.b32", np.uint32, lambda a, b: a & b),
    ("xor.b64", np.uint64, lambda a, b: a ^ b),
    ("inc.u32", np.uint32, lambda d, s: np.where(d >= s, 0, d + 1)),
    ("dec.u32", np.uint32, lambda d, s: np.where((d == 0) | (d > s), s, d - 1)),
]


@pytest.mark.parametrize("mode,seed", [("eager", 0), ("late", 0), ("random", 4)])
@pytest.mark.parametrize("name,dtype,op", REDUCTIONS)
def test_bulk_reduction(mode, seed, name, dtype, op):
    rng = np.random.default_rng(1)
    n = 512 // np.dtype(dtype).itemsize
    if np.issubdtype(dtype, np.floating):
        a, b = (rng.standard_normal(n).astype(dtype) for _ in range(2))
    else:
        a, b = (np.frombuffer(rng.bytes(512), dtype).copy() for _ in range(2))
        a[:4], b[:4] = (0, 5, 3, 7), (9, 5, 7, 3)
    given, out = aligned(n, dtype, a), aligned(n, dtype, b)
    copy = f"cp.reduce.async.bulk.global.shared::cta.bulk_group.{name} [%rd2], [%r3], 512;"
    launch(store_back(copy), "u64 in, u64 out", [given, out], mode, seed)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(out, op(b, a).astype(dtype))


def test_subnormals_are_flushed_by_f32_addition():
    given, out = aligned(128, np.float32, 1e-40), aligned(128, np.float32, 1e-40)
    copy = "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%rd2], [%r3], 512;"
    launch(store_back(copy), "u64 in, u64 out", [given, out])
    assert (out == 0).all()


CLUSTER_SYNC = "barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;\n"


def multicast(mask, mode, seed, fence="fence.mbarrier_init.release.cluster;"):
    """Rank 0 sends to the CTAs of the mask; each waits on its own barrier and copies it out."""
    given, out = data(), aligned((2, 512), np.uint8)
    body = (
        PLACES
        + f"""mov.u32 %r20, %cluster_ctarank;
mul.wide.u32 %rd13, %r20, 512;
add.s64 %rd11, %rd11, %rd13;
mov.u32 %r21, {mask};
shr.u32 %r22, %r21, %r20;
and.b32 %r22, %r22, 1;
setp.eq.u32 %p5, %r22, 1;
setp.eq.u32 %p6, %r20, 0;
cvt.u16.u32 %h1, %r21;
"""
        + only_thread(
            0,
            f"""mbarrier.init.shared::cta.b64 [bar], 1;
{fence}
@%p5 mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 512;""",
        )
        + CLUSTER_SYNC
        + only_thread(
            0,
            "@%p6 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
            ".multicast::cluster [%r3], [%rd1], 512, [bar], %h1;",
        )
        + "@!%p5 bra END;\n"
        + wait("bar", 0)
        + LOAD_BACK
        + "END:\n"
        + CLUSTER_SYNC
    )
    launch(body, "u64 in, u64 out", [given, out], mode, seed, grid=2, cluster=2)
    for rank in range(2):
        assert (out[rank] == (given if mask >> rank & 1 else 0)).all()


@pytest.mark.parametrize("mode,seed", MODES)
@pytest.mark.parametrize("mask", [1, 2, 3])
def test_multicast(mode, seed, mask):
    multicast(mask, mode, seed)


@pytest.mark.parametrize("mode,seed", MODES)
def test_multicast_to_an_mbarrier_whose_initialisation_is_not_fenced(mode, seed):
    """The cluster's barrier orders it for threads, which copies are not; the own CTA's is taken to
    be visible to its copies all the same."""
    multicast(3, mode, seed, "fence.proxy.async.shared::cta;")
    multicast(1, mode, seed, "")
    for fence in ("", "fence.acq_rel.cluster;"):
        with pytest.raises(ptx_emulator.Race, match=r"no fence\.mbarrier_init"):
            multicast(2, mode, seed, fence)


def remote(copy, count=1, tx=512):
    """Rank 0 writes its data to shared memory and sends it to rank 1, which stores it."""
    return (
        PLACES
        + "mov.u32 %r20, %cluster_ctarank;\nsetp.eq.u32 %p6, %r20, 0;\n"
        + only_thread(
            0,
            f"""mbarrier.init.shared::cta.b64 [bar], {count};
fence.mbarrier_init.release.cluster;
@!%p6 mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], {tx};""",
        )
        + CLUSTER_SYNC
        + """@!%p6 bra RECEIVE;
ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%rd10];
mov.u32 %r23, bar;
mapa.shared::cluster.u32 %r24, %r23, 1;
"""
        + copy
        + "bra END;\nRECEIVE:\n"
        + wait("bar", 0)
        + LOAD_BACK
        + "END:\n"
        + CLUSTER_SYNC
    )


@pytest.mark.parametrize("mode,seed", MODES)
def test_bulk_copy_to_another_cta(mode, seed):
    copy = """st.shared.v4.u32 [%r2], {%r4, %r5, %r6, %r7};
fence.proxy.async.shared::cta;
bar.sync 0;
mapa.shared::cluster.u32 %r25, %r3, 1;
""" + only_thread(
        0,
        "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes "
        "[%r25], [%r3], 512, [%r24];",
    )
    given, out = data(), aligned(512, np.uint8)
    launch(remote(copy), "u64 in, u64 out", [given, out], mode, seed, grid=2, cluster=2)
    np.testing.assert_array_equal(out, given)


@pytest.mark.parametrize("mode,seed", MODES)
def test_st_async(mode, seed):
    copy = """mapa.shared::cluster.u32 %r25, %r2, 1;
st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.u32 [%r25], {%r4, %r5, %r6, %r7}, [%r24];
"""
    given, out = data(), aligned(512, np.uint8)
    launch(remote(copy), "u64 in, u64 out", [given, out], mode, seed, grid=2, cluster=2)
    np.testing.assert_array_equal(out, given)


@pytest.mark.parametrize("mode,seed", MODES)
def test_red_async(mode, seed):
    """Each of four words is changed by its own operation; what was there counts."""
    copy = "mapa.shared::cluster.u32 %r25, %r2, 1;\n"
    for i, op in enumerate(("add.u32", "max.s32", "xor.b32", "inc.u32")):
        copy += "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes"
        copy += f".{op} [%r25+{4 * i}], %r{4 + i}, [%r24];\n"
    given, out = data(), aligned(512, np.uint8)
    before = "mov.u32 %r26, 7;\nst.shared.v4.u32 [%r2], {%r26, %r26, %r26, %r26};\n"
    body = remote(copy).replace(CLUSTER_SYNC, before + CLUSTER_SYNC, 1)
    launch(body, "u64 in, u64 out", [given, out], mode, seed, grid=2, cluster=2)
    sent, seen = (x.view(np.uint32).reshape(32, 4) for x in (given, out))
    np.testing.assert_array_equal(seen[:, 0], sent[:, 0] + 7)
    np.testing.assert_array_equal(seen[:, 1], np.maximum(sent[:, 1].view(np.int32), 7))
    np.testing.assert_array_equal(seen[:, 2], sent[:, 2] ^ 7)
    np.testing.assert_array_equal(seen[:, 3], np.where(sent[:, 3] <= 7, 0, 8))


@pytest.mark.parametrize("mode,seed", MODES)
@pytest.mark.parametrize(
    "waits",
    [
        "",
        "cp.async.bulk.wait_group.read 1;",
        f"cp.async.bulk.wait_group 0;\n{BULK_STORE}",
        f"cp.async.bulk.wait_group 0;\n{BULK_STORE}\ncp.async.bulk.wait_group 0;",
    ],
    ids=["none", "one group may be left", "an earlier copy's", "not committed"],
)
def test_a_cta_exits_before_its_shared_memory_was_read(waits, mode, seed):
    """A race in every schedule, whether the read comes too late or not; but the copy is made."""
    given, out = data(), aligned(512, np.uint8)
    with pytest.raises(ptx_emulator.Race, match="exits before"):
        launch(store_back(BULK_STORE, waits=waits), "u64 in, u64 out", [given, out], mode, seed)
    np.testing.assert_array_equal(out, given)


@pytest.mark.parametrize("wait", ["wait_group 0", "wait_group.read 0"])
def test_a_wait_for_all_groups_is_for_all_copies_before(wait):
    second = BULK_STORE.replace("%rd2", "%rd2+512")
    copies = f"{BULK_STORE}\ncp.async.bulk.commit_group;\n{second}"
    given, out = data(), aligned((2, 512), np.uint8)
    for mode in ("eager", "late"):
        body = store_back(copies, waits=f"cp.async.bulk.{wait};")
        launch(body, "u64 in, u64 out", [given, out], mode)
        np.testing.assert_array_equal(out, [given, given])


def test_bulk_faults():
    args = [data(), aligned(512, np.uint8)]
    for size, said in ((8, "no multiple of 16"), (8192, "outside")):
        with pytest.raises(ptx_emulator.MemoryFault, match=said):
            launch(bulk_load(size), "u64 in, u64 out", args)
    body = store_back("cp.async.bulk.prefetch.L2.global [%rd1], 512;")
    launch(body, "u64 in, u64 out", args)


# Warp 0 writes, reads and arrives; of warp 1 lane 0 alone waits, before all of it write.
ONE_LANE_WAITS = (
    PLACES
    + """and.b32 %r4, %r1, 31;
shl.b32 %r4, %r4, 4;
add.u32 %r5, %r3, %r4;
cvt.u64.u32 %rd3, %r4;
add.s64 %rd3, %rd1, %rd3;
setp.ge.u32 %p1, %r1, 32;
"""
    + only_thread(0, "mbarrier.init.shared::cta.b64 [bar], 32;")
    + only_warp(0, "st.shared.v4.u32 [%r5], {%r1, %r1, %r1, %r1};")
    + INIT_DONE
    + only_warp(
        0,
        "ld.shared.u32 %r6, [%r5];\nmbarrier.arrive.shared::cta.b64 %rd9, [bar];\n"
        "st.global.u32 [%rd11], %r6;",
    )
)


@pytest.mark.parametrize("mode,seed", MODES)
@pytest.mark.parametrize(
    "write",
    [
        "st.shared.u32 [%r5], %r1;",
        "cp.async.cg.shared.global [%r5], [%rd3], 16;\ncp.async.wait_all;",
    ],
    ids=["store", "cp.async"],
)
def test_what_one_lane_waited_for_is_not_known_to_the_others(write, mode, seed):
    args = [data(), aligned(1024, np.uint8)]
    for sync, races in (("bar.warp.sync -1;", False), ("", True)):
        body = ONE_LANE_WAITS + only_thread(32, wait("bar", 0)) + only_warp(1, f"{sync}\n{write}")
        with pytest.raises(ptx_emulator.Race) if races else contextlib.nullcontext():
            launch(body, "u64 in, u64 out", args, mode, seed, block=64)
