"""Small modules of PTX that tests of the interfaces launch."""

from .ptx_kernel import kernel

POINTERS = "ld.param.u64 %rd0, [x]; ld.param.u64 %rd1, [y]; mov.u32 %r0, %tid.x;"
AT_THREAD = "mul.wide.u32 %rd2, %r0, 4; add.u64 %rd3, %rd0, %rd2; add.u64 %rd4, %rd1, %rd2;"
PARAMS = ".param .u64 x, .param .u64 y"
SCALE = kernel(
    f"""{POINTERS} {AT_THREAD}
    ld.param.f32 %f0, [factor];
    ld.global.f32 %f1, [%rd3]; mul.f32 %f1, %f1, %f0; st.global.f32 [%rd4], %f1; ret;""",
    PARAMS + ", .param .f32 factor",
    name="scale",
)
# Threads read what their neighbours in other warps write.
RACY = kernel(
    f"""{POINTERS} {AT_THREAD}
    .shared .align 4 .b8 s[256];
    mov.u32 %r1, s; shl.b32 %r2, %r0, 2; add.u32 %r3, %r1, %r2; xor.b32 %r2, %r2, 128;
    add.u32 %r4, %r1, %r2;
    mov.u32 %r5, 0; st.shared.u32 [%r3], %r5; bar.sync 0;
    ld.global.u32 %r5, [%rd3]; st.shared.u32 [%r3], %r5;
    ld.shared.u32 %r5, [%r4]; st.global.u32 [%rd4], %r5; ret;""",
    PARAMS,
    name="racy",
)
# Which CTA gets which ticket is up to the schedule.
TICKETS = kernel(
    f"""{POINTERS}
    mov.u32 %r1, %ctaid.x; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd4, %rd1, %rd2;
    atom.relaxed.gpu.global.add.u32 %r2, [%rd0], 1; st.global.u32 [%rd4], %r2; ret;""",
    PARAMS,
    name="tickets",
)
UNKNOWN = kernel("frobnicate.b32 %r1, %r2;\nadd.u32.odd %r1, %r1, 1;\nret;", name="unknown")
# Loops until an atomic operation has counted to ten.
ROUNDS = kernel(
    """
    .shared .align 4 .b32 s[2];
    mov.u32 %r0, 0; mov.u32 %r2, 0;
    st.shared.u32 [s], %r0;
    LOOP:
    atom.shared.add.u32 %r1, [s], 1;
    add.u32 %r2, %r2, 3;
    st.shared.u32 [s+4], %r2;
    setp.lt.u32 %p1, %r1, 9;
    @%p1 bra LOOP;
    ret;
    """
)
