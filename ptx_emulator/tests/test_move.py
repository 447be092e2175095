"""Addresses, state spaces, ranks in a cluster, special registers and clocks."""

import numpy as np
import pytest

import ptx_emulator

HEAD = """.version 8.7
.target sm_90a
.address_size 64
.global .align 8 .u64 in_global[4] = {11, 22, 33, 44};
.const .align 8 .u64 in_const[2] = {55, 66};
.visible .entry kernel(.param .u64 results, .param .align 8 .b8 block[32])
{
.shared .align 16 .b64 in_shared[4];
.local .align 8 .b64 in_local[4];
.reg .b64 %out, %d<20>;
.reg .b32 %r<20>, %thread, %cta;
.reg .pred %p<10>;
ld.param.u64 %out, [results];
mov.u32 %thread, %tid.x;
mov.u32 %cta, %ctaid.x;
mov.u32 %r19, %ntid.x;
mad.lo.u32 %thread, %cta, %r19, %thread;
mul.wide.u32 %d19, %thread, 64;
add.u64 %out, %out, %d19;
"""


def launch(body, threads=32, ctas=1, cluster=1):
    """Each thread has 8 results of 64 bits, at [%out]."""
    results = np.zeros((threads * ctas, 8), np.uint64)
    block = (np.arange(4, dtype=np.uint64) + 100).tobytes()
    ptx_emulator.Module(HEAD + body + "\nret;\n}\n").launch(
        "kernel", grid=ctas, block=threads, cluster=cluster, args=[results, block], races=False
    )
    return results


def put(i, register):
    return f"st.global.u64 [%out+{8 * i}], {register};\n"


def test_addresses_of_variables():
    out = launch(
        "mov.u32 %r0, in_shared;\nmov.u32 %r1, in_shared+24;\nmov.u64 %d0, in_shared;\n"
        "cvt.u64.u32 %d1, %r0;\ncvt.u64.u32 %d2, %r1;\n"
        + put(0, "%d0") + put(1, "%d1") + put(2, "%d2")
        + "mov.u64 %d3, in_local;\nmov.u64 %d4, in_local+8;\nsub.u64 %d4, %d4, %d3;\n"
        + put(3, "%d4")
        + "mov.u64 %d5, in_global;\nld.global.u64 %d6, [%d5+16];\n" + put(4, "%d6")
        + "mov.u64 %d5, in_global+8;\nld.global.u64 %d6, [%d5];\n" + put(5, "%d6")
        + "mov.u64 %d5, in_const+8;\nld.const.u64 %d6, [%d5];\n" + put(6, "%d6")
    )  # fmt: skip
    assert (out[:, 0] == out[:, 1]).all()
    assert (out[:, 2] - out[:, 0] == 24).all()
    assert (out[:, 3] == 8).all()
    assert (out[:, 4:7] == [33, 22, 66]).all()


def test_generic_addresses_reach_the_same_bytes():
    out = launch(
        "mov.u64 %d0, 7;\nst.shared.u64 [in_shared+8], %d0;\n"
        "cvta.shared.u64 %d1, in_shared+8;\nld.u64 %d2, [%d1];\n" + put(0, "%d2")
        + "mov.u64 %d3, in_shared;\ncvta.shared::cta.u64 %d3, %d3;\nld.u64 %d4, [%d3+8];\n"
        + put(1, "%d4")
        + "cvta.to.shared.u64 %d5, %d1;\nld.shared.u64 %d6, [%d5];\n" + put(2, "%d6")
        + "cvt.u64.u32 %d7, %thread;\nst.local.u64 [in_local+16], %d7;\n"
        "cvta.local.u64 %d8, in_local;\nld.u64 %d9, [%d8+16];\n" + put(3, "%d9")
        + "cvta.to.local.u64 %d8, %d8;\nld.local.u64 %d9, [%d8+16];\n" + put(4, "%d9")
        + "cvta.global.u64 %d10, in_global;\nld.u64 %d11, [%d10];\n" + put(5, "%d11")
        + "mov.b64 %d12, block;\ncvta.param.u64 %d13, %d12;\nld.u64 %d14, [%d13+24];\n"
        + put(6, "%d14")
        + "cvta.to.param.u64 %d13, %d13;\nsub.u64 %d13, %d13, %d12;\n" + put(7, "%d13")
    )  # fmt: skip
    thread = np.arange(32)
    assert (out[:, :3] == 7).all()
    assert (out[:, 3] == thread).all() and (out[:, 4] == thread).all()
    assert (out[:, 5:] == [11, 103, 0]).all()


SPACES = ("shared", "shared::cta", "shared::cluster", "local", "global", "param")


def test_isspacep():
    generic = (
        "cvta.shared.u64 %d0, in_shared;\ncvta.local.u64 %d1, in_local;\n"
        "cvta.global.u64 %d2, in_global;\nmov.b64 %d3, block;\ncvta.param.u64 %d3, %d3;\n"
    )
    inside = [
        {"shared", "shared::cta", "shared::cluster"},
        {"local"},
        {"global"},
        {"global", "param"},
    ]
    for space in SPACES:
        body = generic + "".join(
            f"isspacep.{space} %p{i}, %d{i};\nselp.u64 %d9, 1, 0, %p{i};\n" + put(i, "%d9")
            for i in range(4)
        )
        expected = [space in spaces for spaces in inside]
        assert (launch(body)[:, :4] == expected).all(), space


def test_ranks_in_a_cluster():
    out = launch(
        "mov.u32 %r0, in_shared;\nmov.u32 %r1, %cluster_ctarank;\nxor.b32 %r2, %r1, 1;\n"
        "mapa.shared::cluster.u32 %r3, %r0, %r1;\nsub.u32 %r4, %r3, %r0;\ncvt.u64.u32 %d0, %r4;\n"
        + put(0, "%d0")
        + "mapa.shared::cluster.u32 %r5, in_shared+8, %r2;\n"
        "getctarank.shared::cluster.u32 %r6, %r5;\ncvt.u64.u32 %d0, %r6;\n" + put(1, "%d0")
        + "cvta.shared.u64 %d1, in_shared;\nmapa.u64 %d2, %d1, %r2;\n"
        "getctarank.u64 %r7, %d2;\ncvt.u64.u32 %d0, %r7;\n" + put(2, "%d0")
        + "mapa.u64 %d3, %d2, %r1;\nsub.u64 %d3, %d3, %d1;\n" + put(3, "%d3")
        + "isspacep.shared::cta %p0, %d2;\nselp.u64 %d4, 1, 0, %p0;\n" + put(4, "%d4")
        + "isspacep.shared::cluster %p0, %d2;\nselp.u64 %d4, 1, 0, %p0;\n" + put(5, "%d4")
        + "cvt.u64.u32 %d7, %r5;\ncvta.shared::cluster.u64 %d5, %d7;\nsub.u64 %d5, %d5, %d2;\n"
        + put(6, "%d5"),
        ctas=2, cluster=2,
    )  # fmt: skip
    rank = np.repeat([0, 1], 32)
    assert (out[:, 0] == 0).all() and (out[:, 3] == 0).all()
    assert (out[:, 1] == 1 - rank).all() and (out[:, 2] == 1 - rank).all()
    assert (out[:, 4:7] == [0, 1, 8]).all()


def test_special_registers():
    names = ("laneid", "lanemask_eq", "lanemask_lt", "lanemask_le", "lanemask_gt", "lanemask_ge")
    body = "".join(
        f"mov.u32 %r0, %{name};\ncvt.u64.u32 %d0, %r0;\n" + put(i, "%d0")
        for i, name in enumerate((*names, "warpid", "ntid.x"))
    )
    out = launch(body, threads=96)
    lane = np.arange(96, dtype=np.uint64) % 32
    bit = np.uint64(1) << lane
    full = np.uint64(2**32 - 1)
    expected = [lane, bit, bit - 1, 2 * bit - 1, full & ~(2 * bit - 1), full & ~(bit - 1)]
    assert (out[:, :6] == np.stack(expected, 1)).all()
    assert (out[:, 6] == np.arange(96) // 32).all() and (out[:, 7] == 96).all()


@pytest.mark.parametrize("clock", ("clock64", "globaltimer"))
def test_clocks_go_forward(clock):
    """Never back, and a thread that waits for one comes to an end."""
    low = {"clock64": "clock", "globaltimer": "globaltimer_lo"}[clock]
    out = launch(
        f"mov.u64 %d0, %{clock};\nmov.u32 %r0, %{low};\ncvt.u64.u32 %d1, %r0;\n"
        f"again:\nmov.u64 %d2, %{clock};\nsub.u64 %d3, %d2, %d0;\n"
        "setp.lt.u64 %p0, %d3, 1000;\n@%p0 bra again;\n"
        f"mov.u32 %r0, %{low};\ncvt.u64.u32 %d3, %r0;\n"
        + "".join(put(i, f"%d{i}") for i in range(4))
    )
    assert (np.diff(out[:, :4].astype(np.int64)) >= 0).all()
    assert (out[:, 2] >= out[:, 0] + 1000).all()


@pytest.mark.parametrize(
    "line",
    (
        "mov.u32 %r0, in_global;",  # its address does not fit
        "mov.u64 %d0, kernel;",  # addresses of functions
        "mov.u64 %d0, nowhere;",
        "mov.u32 %r0, %clock64;",
        "mov.b64 {%r0, %r1, %r2}, %d0;",
        "mov.b32 {%r0, %r1}, %r2;",
        "mov.b64 %d0, %r0;",
        "cvta.global.u64 %d0, in_shared;",
        "cvta.shared.u32 %r0, %r1;",
        "mapa.u32 %r0, %r1, %r2;",
        "isspacep.const %p0, %d0;",
        "mov.u32.x %r0, %r1;",
    ),
)
def test_what_is_refused(line):
    assert ptx_emulator.Module(HEAD + line + "\nret;\n}\n").unsupported
