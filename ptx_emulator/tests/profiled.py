"""Profiles of kernels that a test writes as PTX."""

from ptx_emulator import Module

from .ptx_kernel import kernel


def profiled(body, *arrays, block=32, grid=1, before="", target="sm_90a", profile=True, **options):
    """The profile of a kernel with pointers to the arrays in %rd0, %rd1, ... and tid.x in %r0."""
    params = ", ".join(f".param .u64 a{i}" for i in range(len(arrays)))
    loads = "".join(f"ld.param.u64 %rd{i}, [a{i}];\n" for i in range(len(arrays)))
    text = kernel(loads + "mov.u32 %r0, %tid.x;\n" + body, params, target, before=before)
    return Module(text).launch("k", grid, block, list(arrays), profile=profile, **options).profile


def by_opcode(profile, opcode):
    """The lines of a profile whose opcode starts like this."""
    return [line for line in profile.lines if line["opcode"].startswith(opcode)]


def only(profile, opcode):
    (line,) = by_opcode(profile, opcode)
    return line
