"""Kernels for tests, written in PTX."""

import itertools

import numpy as np

import ptx_emulator

MODES = [("eager", 0), ("late", 0), ("random", 1), ("random", 2), ("random", 3)]

_REGISTERS = """
.reg .pred %p<40>;
.reg .b16 %h<40>;
.reg .b32 %r<400>;
.reg .f32 %f<400>;
.reg .b64 %rd<80>;
.reg .f64 %fd<20>;
"""
_labels = itertools.count()


def module(
    body: str, params: str = "", shared: str = "", directives: str = ""
) -> ptx_emulator.Module:
    """A module with the kernel `k`. params: "u64 out, u32 n" or a whole declaration."""
    declared = [
        p.strip() if p.strip().startswith(".") else ".param .{} {}".format(*p.split())
        for p in params.split(",")
        if p.strip()
    ]
    text = f""".version 8.6
.target sm_90a
.address_size 64
.visible .entry k({", ".join(declared)}) {directives}
{{
{_REGISTERS}
{shared}
{body}
ret;
}}
"""
    loaded = ptx_emulator.Module(text)
    assert not loaded.unsupported, loaded.unsupported
    return loaded


def label(prefix: str = "L") -> str:
    return f"{prefix}{next(_labels)}"


def pointer(register: str, param: str) -> str:
    return f"ld.param.u64 {register}, [{param}];\ncvta.to.global.u64 {register}, {register};\n"


def wait(barrier: str, parity: int | str, suspends: bool = True) -> str:
    """Until the phase of that parity is complete."""
    loop, done = label(), label()
    op = "try_wait" if suspends else "test_wait"
    return f"""{loop}:
mbarrier.{op}.parity.shared::cta.b64 %p39, [{barrier}], {parity};
@%p39 bra {done};
bra {loop};
{done}:
"""


def only_thread(n: int, body: str) -> str:
    skip = label()
    return f"""mov.u32 %r399, %tid.x;
setp.ne.u32 %p38, %r399, {n};
@%p38 bra {skip};
{body}
{skip}:
"""


def only_warp(n: int, body: str) -> str:
    skip = label()
    return f"""mov.u32 %r399, %tid.x;
shr.u32 %r399, %r399, 5;
setp.ne.u32 %p38, %r399, {n};
@%p38 bra {skip};
{body}
{skip}:
"""


INIT_DONE = "fence.mbarrier_init.release.cluster;\nfence.proxy.async;\nbar.sync 0;\n"


def aligned(shape, dtype, fill=None, align=128) -> np.ndarray:
    """An array whose address is a multiple of `align`."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + align, np.uint8)
    start = -raw.ctypes.data % align
    out = raw[start : start + size].view(dtype).reshape(shape)
    if fill is not None:
        out[...] = fill
    return out
