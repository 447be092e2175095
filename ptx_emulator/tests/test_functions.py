"""Functions of a module: arguments of every kind, divergent calls; names in nested blocks."""

import numpy as np
import pytest

from ptx_emulator import Module

from .ptx_kernel import kernel, per_lane

LANES = np.arange(32, dtype=np.uint32)


def of_registers(type, body):
    return f".func (.reg .u32 r) f (.reg .{type} a) {{ {body} ret; }}\n"


@pytest.mark.parametrize("argument, value", [("%r0", LANES), ("5", 5), ("-9", -9)])
def test_arguments_in_registers(argument, value):
    f = of_registers("u32", "add.u32 r, a, 7;")
    result = per_lane("%r1", setup=f"call (%r1), f, ({argument});", before=f)
    np.testing.assert_array_equal(result, (np.zeros(32, int) + value + 7) % 2**32)


def test_constants_have_the_width_of_the_parameter():
    f = of_registers("u16", "cvt.u32.u16 r, a;")
    result = per_lane("%r1", setup="call (%r1), f, (-2);", before=f)
    np.testing.assert_array_equal(result, np.full(32, 0xFFFE))


@pytest.mark.parametrize("argument", ["%r0", "%rd0"])
def test_arguments_of_another_width_are_refused(argument):
    f = of_registers("u16", "cvt.u32.u16 r, a;")
    module = Module(kernel(f"call (%r1), f, ({argument}); ret;", before=f))
    assert "another width than the parameter" in module.unsupported[0][2]


def test_lanes_that_call_apart_have_their_own_arguments_and_ways_back():
    """f is called from two places, by a part of the lanes each, and calls g in its own loop."""
    before = """
    .func (.param .b32 r) g (.param .b32 a)
    { .reg .b32 %a; ld.param.u32 %a, [a]; mul.lo.u32 %a, %a, 3; st.param.b32 [r], %a; ret; }
    .func (.param .b32 r) f (.param .b32 a, .param .b32 n)
    {
    .reg .b32 %x<4>; .reg .pred %q;
    ld.param.u32 %x1, [a]; ld.param.u32 %x2, [n];
    NEXT: setp.eq.u32 %q, %x2, 0;
    @%q bra DONE;
    { .param .b32 p; .param .b32 v;
    st.param.b32 [p], %x1; call.uni (v), g, (p); ld.param.b32 %x1, [v]; }
    add.u32 %x1, %x1, 1; sub.u32 %x2, %x2, 1;
    bra NEXT;
    DONE: st.param.b32 [r], %x1; ret;
    }
    """
    call = """
    {{ .param .b32 p; .param .b32 n; .param .b32 v;
    st.param.b32 [p], {}; st.param.b32 [n], {}; call (v), f, (p, n); ld.param.b32 %r1, [v]; }}
    """
    setup = (
        "and.b32 %r2, %r0, 3; setp.lt.u32 %p1, %r0, 11; @%p1 bra FEW;"
        + call.format("%r0", "%r2")
        + "bra END; FEW: add.u32 %r3, %r0, 100; add.u32 %r2, %r2, 1;"
        + call.format("%r3", "%r2")
        + "END:"
    )

    def model(lane):
        value, times = (lane + 100, (lane & 3) + 1) if lane < 11 else (lane, lane & 3)
        for _ in range(times):
            value = 3 * value + 1
        return value

    result = per_lane("%r1", setup=setup, before=before)
    np.testing.assert_array_equal(result, [model(lane) for lane in range(32)])


@pytest.mark.parametrize("inner", [".reg .b32 %r<9>;", ".reg .b32 %r5;"])
def test_names_of_a_block_hide_those_outside(inner):
    setup = f"""
    mov.u32 %r5, 7; mov.u32 %r6, 6;
    {{ {inner} mov.u32 %r5, 9; {{ .reg .b64 %r<6>; mov.u64 %r5, 8; }} add.u32 %r5, %r5, 1; }}
    mov.u32 %r1, %r5;
    """
    np.testing.assert_array_equal(per_lane("%r1", setup=setup), np.full(32, 7))
