"""What kernels build of barriers: a ring of stages, a grid that meets."""

import numpy as np
import pytest

import ptx_emulator

from .ptx_text import MODES, aligned, module, pointer

modes = pytest.mark.parametrize("mode, seed", MODES)


def run(body, params, args, block, grid=1, **options):
    loaded = module(body, params, ".shared .align 128 .b8 data[256];\n")
    loaded.launch("k", grid, block, args, **options)


# A ring of two stages between two warps and a third that only looks on; barriers 1 and 2 say that a
# stage is full, 3 and 4 that it is empty.
RING = """mov.u32 %r1, %tid.x;
and.b32 %r2, %r1, 31;
shl.b32 %r2, %r2, 2;
mov.u32 %r3, data;
add.u32 %r2, %r2, %r3;
xor.b32 %r3, %r2, 4;
mov.u32 %r4, 0;
setp.ge.u32 %p1, %r1, 64;
@%p1 bra END;
setp.ge.u32 %p1, %r1, 32;
@%p1 bra CONSUMER;
PRODUCER:
and.b32 %r5, %r4, 1;
add.u32 %r6, %r5, 1;
add.u32 %r7, %r5, 3;
setp.ge.u32 %p2, %r4, 2;
@%p2 bar.sync %r7, 64;
mad.lo.u32 %r8, %r5, 128, %r2;
st.shared.u32 [%r8], %r4;
bar.arrive %r6, 64;
add.u32 %r4, %r4, 1;
setp.lt.u32 %p3, %r4, 8;
@%p3 bra PRODUCER;
bra END;
CONSUMER:
and.b32 %r5, %r4, 1;
add.u32 %r6, %r5, 1;
add.u32 %r7, %r5, 3;
bar.sync %r6, 64;
mad.lo.u32 %r8, %r5, 128, %r3;
ld.shared.u32 %r9, [%r8];
setp.lt.u32 %p2, %r4, 6;
@%p2 bar.arrive %r7, 64;
add.u32 %r4, %r4, 1;
setp.lt.u32 %p3, %r4, 8;
@%p3 bra CONSUMER;
END:
"""


@modes
def test_a_ring_of_named_barriers(mode, seed):
    run(RING, "", [], block=96, mode=mode, seed=seed)


@modes
@pytest.mark.parametrize("warps", [2, 3])
def test_a_producer_that_waits_for_no_empty_stage(warps, mode, seed):
    """It may come to a barrier a second time before the consumer has come at all."""
    body = RING.replace("@%p2 bar.sync %r7, 64;\n", "").replace("@%p2 bar.arrive %r7, 64;\n", "")
    with pytest.raises(ptx_emulator.Race):
        run(body, "", [], block=32 * warps, mode=mode, seed=seed)


# grid_group::sync() of cooperative_groups, as nvcc compiles it: a counter behind the size of the
# workspace, whose address is in two registers.
GRID_SYNC = """bar.sync 0;
setp.ne.u32 %p1, %r1, 0;
@%p1 bra MET;
mov.u32 %r10, %nctaid.x;
sub.u32 %r11, 0x80000001, %r10;
mov.u32 %r12, %ctaid.x;
setp.eq.u32 %p2, %r12, 0;
selp.b32 %r11, %r11, 1, %p2;
FENCE
atom.add.global.u32 %r13, [%rd6+4], %r11;
SPIN:
ld.volatile.global.u32 %r14, [%rd6+4];
xor.b32 %r14, %r14, %r13;
setp.ge.s32 %p3, %r14, 0;
@%p3 bra SPIN;
fence.acq_rel.gpu;
MET:
bar.sync 0;
"""


@modes
@pytest.mark.parametrize("fence", ["fence.acq_rel.gpu;", ""])
def test_a_grid_meets_in_the_workspace_of_a_cooperative_launch(fence, mode, seed):
    body = (
        pointer("%rd2", "out")
        + """mov.u32 %r1, %envreg1;
mov.u32 %r2, %envreg2;
mov.b64 %rd6, {%r2, %r1};
mov.u32 %r1, %tid.x;
mov.u32 %r3, %ctaid.x;
mad.lo.u32 %r4, %r3, 64, %r1;
mul.wide.u32 %rd3, %r4, 4;
add.s64 %rd3, %rd2, %rd3;
st.global.u32 [%rd3], %r3;
"""
        + GRID_SYNC.replace("FENCE", fence)
        + """xor.b32 %r4, %r4, 64;
mul.wide.u32 %rd4, %r4, 4;
add.s64 %rd4, %rd2, %rd4;
ld.global.u32 %r5, [%rd4];
add.s64 %rd5, %rd3, 2048;
st.global.u32 [%rd5], %r5;
"""
    )
    out = aligned(1024, np.uint32)
    if fence:
        run(body, "u64 out", [out], block=64, grid=8, mode=mode, seed=seed)
        assert (out[512:] == (np.arange(512) ^ 64) // 64).all()
    else:
        with pytest.raises(ptx_emulator.Race):
            run(body, "u64 out", [out], block=64, grid=8, mode=mode, seed=seed)
