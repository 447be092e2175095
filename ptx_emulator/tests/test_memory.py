"""Loads and stores of every width and space, and the errors of those that go astray."""

import numpy as np
import pytest
import torch

from ptx_emulator import EmulatorError, MemoryFault, Module, Uninitialized, Unsupported

from .ptx_kernel import kernel, run

WIDTHS = {"b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "b32": 4, "u32": 4, "s32": 4,
          "f32": 4, "b64": 8, "u64": 8, "s64": 8, "f64": 8}  # fmt: skip
REGISTERS = {1: "%h", 2: "%h", 4: "%r", 8: "%rd"}


def aligned(n):
    """Zeros at a multiple of 64."""
    raw = np.zeros(n + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n]


def bytes_of(n, seed=0):
    x = aligned(n)
    x[:] = np.random.default_rng(seed).integers(0, 256, n)
    return x


@pytest.mark.parametrize("vector", [1, 2, 4, 8])
@pytest.mark.parametrize("type", WIDTHS)
@pytest.mark.parametrize("space", ["", ".global", ".shared", ".local"])
def test_copies_of_every_width(space, type, vector):
    width = WIDTHS[type] * vector
    if width > 32:
        pytest.skip("more than 32 bytes")
    prefix = {"f32": "%f", "f64": "%fd"}.get(type, REGISTERS[WIDTHS[type]])
    base = 4 if prefix == "%rd" else 1
    names = [f"{prefix}{base + i}" for i in range(vector)] if prefix != "%fd" else [
        f"%fd{i}" for i in range(vector)]  # fmt: skip
    value = names[0] if vector == 1 else "{" + ", ".join(names) + "}"
    shape = f".v{vector}.{type}" if vector > 1 else f".{type}"
    through = {
        "": "",
        ".global": "",
        ".shared": f"mad.lo.u32 %r20, %r0, {width}, s_base; st.shared{shape} [%r20], {value};"
        f"bar.warp.sync -1; ld.shared{shape} {value}, [%r20];",
        ".local": f"st.local{shape} [l], {value}; ld.local{shape} {value}, [l];",
    }[space].replace("s_base", "%r21")
    body = f"""
    .shared .align 32 .b8 s[1024];
    .local .align 32 .b8 l[32];
    mov.u32 %r21, s;
    mul.wide.u32 %rd13, %r0, {width};
    add.u64 %rd0, %rd0, %rd13; add.u64 %rd1, %rd1, %rd13;
    ld{space if space == ".global" else ""}{shape} {value}, [%rd0];
    {through}
    st{space if space == ".global" else ""}{shape} [%rd1], {value};
    ret;
    """
    x, y = bytes_of(32 * width), aligned(32 * width + 64)
    run(body, x, y)
    assert (y[: x.size] == x).all() and not y[x.size :].any()


@pytest.mark.parametrize("type, expected", [("s8", -2), ("u8", 254), ("s16", -2), ("u16", 65534)])
def test_narrow_loads_extend_into_wider_registers(type, expected):
    x, y = np.array([-2, -1, -1, -1], np.int8), np.zeros(32, np.int32)
    if type.endswith("16"):
        x = x.view(np.int16)
        x[:] = -2
    run(f"ld.{type} %r1, [%rd0]; add.u64 %rd2, %rd1, %rd15; st.u32 [%rd2], %r1; ret;", x, y)
    assert (y == expected).all()
    z = np.zeros(32, np.int64)
    run(f"ld.{type} %rd3, [%rd0]; mul.wide.u32 %rd2, %r0, 8; add.u64 %rd2, %rd1, %rd2;"
        "st.u64 [%rd2], %rd3; ret;", x, z)  # fmt: skip
    assert (z == expected).all()


def test_narrow_stores_take_the_low_bits():
    y = np.zeros(8, np.uint8)
    body = "mov.u32 %r1, 0x12345678; st.u8 [%rd0], %r1; st.u16 [%rd0+2], %r1; ret;"
    run(body, y, block=1)
    assert list(y) == [0x78, 0, 0x78, 0x56, 0, 0, 0, 0]


def test_128_bits():
    x, y = bytes_of(512), aligned(512)
    body = """
    mul.wide.u32 %rd3, %r0, 16; add.u64 %rd4, %rd0, %rd3; add.u64 %rd5, %rd1, %rd3;
    ld.global.b128 %q1, [%rd4]; st.global.b128 [%rd5], %q1; ret;
    """
    run(body, x, y)
    assert (x == y).all()


@pytest.mark.parametrize(
    "modifiers",
    ["global.nc", "global.L1::no_allocate", "global.L1::evict_last.L2::128B", "volatile.global",
     "relaxed.gpu.global", "acquire.sys.global", "global.ca", "weak.global", "global.nc.L2::256B"],
)  # fmt: skip
def test_cache_hints_and_orders_load_the_same(modifiers):
    x, y = np.arange(32, dtype=np.uint32), np.zeros(32, np.uint32)
    body = f"""
    add.u64 %rd2, %rd0, %rd15; add.u64 %rd3, %rd1, %rd15;
    ld.{modifiers}.u32 %r1, [%rd2]; st.global.u32 [%rd3], %r1; ret;
    """
    run(body, x, y)
    assert (x == y).all()


def test_a_cache_policy_is_one_more_operand():
    x, y = np.arange(32, dtype=np.uint32), np.zeros(32, np.uint32)
    body = """
    createpolicy.fractional.L2::evict_last.b64 %rd9, 1.0;
    add.u64 %rd2, %rd0, %rd15; add.u64 %rd3, %rd1, %rd15;
    ld.global.L2::cache_hint.u32 %r1, [%rd2], %rd9;
    st.global.L2::cache_hint.u32 [%rd3], %r1, %rd9; ret;
    """
    run(body, x, y)
    assert (x == y).all()


def test_generic_addresses_of_mixed_spaces():
    # Even lanes go to local, odd ones to shared memory, through one instruction.
    y = np.zeros(32, np.uint32)
    body = """
    .local .align 8 .b8 l[8];
    .shared .align 8 .b8 s[256];
    mov.u64 %rd2, l; cvta.local.u64 %rd3, %rd2;
    mov.u64 %rd4, s; cvta.shared.u64 %rd5, %rd4; add.u64 %rd5, %rd5, %rd15;
    and.b32 %r1, %r0, 1; setp.eq.u32 %p1, %r1, 0; selp.b64 %rd6, %rd3, %rd5, %p1;
    st.u32 [%rd6], %r0; ld.u32 %r2, [%rd6];
    add.u64 %rd7, %rd0, %rd15; st.u32 [%rd7], %r2; ret;
    """
    assert (run(body, y) == np.arange(32)).all()


def test_parameters_are_reached_through_registers_and_generic_addresses():
    ptx = kernel(
        """
        mov.b64 %rd1, k_param; ld.param.u64 %rd2, [%rd1]; ld.param.u32 %r1, [%rd1+8];
        cvta.param.u64 %rd3, %rd1; ld.u32 %r2, [%rd3+12];
        add.u32 %r3, %r1, %r2; st.global.u32 [%rd2], %r3; ret;
        """,
        ".param .align 8 .b8 k_param[16]",
    )
    y = np.zeros(1, np.uint32)
    block = np.array([y.ctypes.data, 5 | 37 << 32], np.uint64)
    Module(ptx).launch("k", 1, 1, [block.tobytes()], memory=[y])
    assert y[0] == 42


def test_variables_of_a_module():
    before = (
        ".const .align 4 .b32 c[2] = {7, 8};\n.global .align 4 .b32 g[2];\n"
        ".global .align 8 .u64 p = generic(g);\n"
    )
    body = """
    ld.const.u32 %r1, [c+4]; ld.global.u32 %r2, [g]; add.u32 %r3, %r1, %r2;
    st.global.u32 [g+4], %r3;
    ld.global.u64 %rd1, [p]; ld.u32 %r4, [%rd1+4]; st.global.u32 [%rd0], %r4; ret;
    """
    y = np.zeros(1, np.uint32)
    run(body, y, before=before, block=1)
    assert y[0] == 8


def test_torch_tensors_and_views():
    x = torch.arange(64, dtype=torch.int32).view(8, 8)
    y = torch.zeros(32, dtype=torch.int32)
    body = """
    add.u64 %rd2, %rd0, %rd15; add.u64 %rd3, %rd1, %rd15;
    ld.global.u32 %r1, [%rd2]; st.global.u32 [%rd3], %r1; ret;
    """
    run(body, x[4:], y)
    assert torch.equal(y, x[4:].flatten())
    with pytest.raises(MemoryFault, match=r"past the end|outside all memory"):
        run(body, x[5:], y)


FAULTS = {  # and how the place is called
    "past the end": ("ld.global.u32 %r1, [%rd0+128];", "at argument 0 + 128 outside"),
    "across the end": ("ld.global.u64 %rd1, [%rd0+120];", "past the end of argument 0"),
    "before the start": ("ld.global.u32 %r1, [%rd0+-4];", "at argument 0 - 4 outside"),
    "null": ("mov.u64 %rd1, 0; ld.global.u32 %r1, [%rd1];", "at 0x0 outside"),
    "small number": ("mov.u64 %rd1, 16; st.u32 [%rd1], %r1;", "at 0x10 outside"),
    "huge number": ("mov.u64 %rd1, -4; st.u32 [%rd1], %r1;", "at 0xfffffffffffffffc outside"),
    "shared past the end": ("ld.shared.u32 %r1, [s+64];", "at 0x440 in shared memory outside"),
    "shared below the start": (
        "mov.u32 %r1, 0; st.shared.u32 [%r1], %r1;",
        "at 0x0 in shared memory outside",
    ),
    "another rank's": (
        "mov.u32 %r1, s; add.u32 %r1, %r1, 0x1000000; st.shared.u32 [%r1], %r1;",
        "at 0x1000400 in shared memory of rank 1 in a cluster of 1",
    ),
    "local past the end": ("st.local.u32 [l+16], %r1;", "at 0x10 in local memory, which has 16"),
    "constant": ("st.global.u32 [c], %r1;", "a write to c, which is constant"),
    "parameters": (
        "mov.b64 %rd1, a0; cvta.param.u64 %rd2, %rd1; st.u32 [%rd2], %r1;",
        "a write to the kernel's parameters, which is constant",
    ),
}


@pytest.mark.parametrize("what", FAULTS)
def test_stray_accesses_name_place_and_thread(what):
    y = np.zeros(31, np.uint32)
    stray, place = FAULTS[what]
    body = f".shared .align 4 .b8 s[64]; .local .align 4 .b8 l[16];\n{stray}\nret;"
    with pytest.raises(MemoryFault) as raised:
        run(body, y, before=".const .align 4 .b32 c = 1;\n", block=(8, 4))
    text = str(raised.value)
    assert text.startswith("k: ") and "PTX line" in text
    assert place in text
    assert "thread (0,0,0) of CTA (0,0,0)" in text
    assert not y.any()


def test_a_fault_names_the_lane_that_strays():
    y = np.zeros(20, np.uint32)
    with pytest.raises(MemoryFault, match=r"thread \(20,0,0\)"):
        run("add.u64 %rd1, %rd0, %rd15; st.global.u32 [%rd1], %r0; ret;", y)


@pytest.mark.parametrize("type, bytes", [("u16", 2), ("u32", 4), ("u64", 8), ("v2.u32", 8),
                                         ("v4.u32", 16), ("v2.u64", 16)])  # fmt: skip
@pytest.mark.parametrize("space", ["global", "shared"])
def test_misaligned_accesses(type, bytes, space):
    value = {"u16": "%h1", "u32": "%r1", "u64": "%rd4", "v2.u32": "{%r1, %r2}",
             "v4.u32": "{%r1, %r2, %r3, %r4}", "v2.u64": "{%rd4, %rd5}"}[type]  # fmt: skip
    for offset in (1, bytes // 2):
        body = f"""
        .shared .align 16 .b8 s[64];
        mov.u32 %r9, s;
        st.{space}.{type} [{"%rd0" if space == "global" else "%r9"}+{offset}], {value}; ret;
        """
        with pytest.raises(MemoryFault, match=f"no multiple of {bytes}"):
            run(body, np.zeros(64, np.uint64), block=1)


@pytest.mark.parametrize("space", ["shared", "local"])
def test_reading_what_nobody_wrote(space):
    body = """
    .SPACE .align 4 .b8 s[64];
    st.SPACE.u32 [s+4], %r0;
    ld.SPACE.u32 %r1, [s+4];
    ld.SPACE.u16 %h1, [s+OFFSET];
    st.global.u32 [%rd0], %r1; ret;
    """.replace("SPACE", space)
    y = np.zeros(4, np.uint32)
    run(body.replace("OFFSET", "6"), y, block=1)
    for offset in (0, 2, 8):
        with pytest.raises(MemoryFault, match="nobody has written"):
            run(body.replace("OFFSET", str(offset)), y, block=1)


def test_uninitialized_arguments():
    body = (
        "add.u64 %rd1, %rd0, %rd15; st.global.u32 [%rd1], %r0; ld.global.u32 %r2, [%rd0+LAST]; ret;"
    )
    y = np.zeros(33, np.uint32)
    run(body.replace("LAST", "124"), Uninitialized(y), races=False)
    with pytest.raises(MemoryFault, match="nobody has written"):
        run(body.replace("LAST", "128"), Uninitialized(y), races=False)


def test_read_only_arrays():
    x = np.zeros(32, np.uint32)
    x.flags.writeable = False
    with pytest.raises(MemoryFault, match="argument 0, which is constant"):
        run("st.global.u32 [%rd0], %r0; ret;", x)


@pytest.mark.parametrize(
    "line",
    ["ld.global.v3.u32 {%r1,%r2,%r3}, [%rd0];", "ld.global.bogus.u32 %r1, [%rd0];",
     "ld.global.v2.u32 %r1, [%rd0];", "st.acquire.gpu.global.u32 [%rd0], %r1;",
     "ld.acquire.global.u32 %r1, [%rd0];", "ld.shared.u32 %h1, [s];", "frobnicate.b32 %r1, %r2;",
     "ld.global.v8.b64 {%rd1,%rd2,%rd3,%rd4,%rd5,%rd6,%rd7,%rd8}, [%rd0];"],
)  # fmt: skip
def test_what_is_not_modelled_is_an_error_with_its_line(line):
    with pytest.raises(Unsupported, match=r"line \d+"):
        run(".shared .b32 s;\n" + line + "\nret;", np.zeros(32, np.uint32))


def test_traps_and_tables():
    with pytest.raises(EmulatorError, match="trap"):
        run("trap; ret;")
    with pytest.raises(EmulatorError, match="index 2 of a table of 2"):
        run("mov.u32 %r1, 2; T: .branchtargets A, B; brx.idx %r1, T; A: B: ret;")
