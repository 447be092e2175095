"""Kernels written as PTX in a test."""

import textwrap

import numpy as np

from ptx_emulator import Module

REGISTERS = """
.reg .pred %p<16>; .reg .b16 %h<16>; .reg .b32 %r<32>; .reg .b64 %rd<16>; .reg .f32 %f<16>;
.reg .f64 %fd<8>; .reg .b128 %q<4>;
"""
HEADER = ".version 9.0\n.target {target}\n.address_size 64\n"


def kernel(body, params="", target="sm_90a", name="k", before=""):
    """A module with one kernel; `body` finds the usual registers declared."""
    return (
        HEADER.format(target=target)
        + before
        + f"\n.visible .entry {name}({params})\n{{{REGISTERS}{textwrap.dedent(body)}\n}}\n"
    )


def run(body, *arrays, block=32, grid=1, before="", target="sm_90a", **options):
    """Runs the body with pointers to the arrays in %rd0, %rd1, ..., tid.x in %r0, 4 tid.x in %rd15.

    The last array is what it returns."""
    params = ", ".join(f".param .u64 a{i}" for i in range(len(arrays)))
    loads = "".join(f"ld.param.u64 %rd{i}, [a{i}];\n" for i in range(len(arrays)))
    setup = "mov.u32 %r0, %tid.x;\nmul.wide.u32 %rd15, %r0, 4;\n"
    module = Module(kernel(loads + setup + textwrap.dedent(body), params, target, before=before))
    module.launch("k", grid, block, list(arrays), **options)
    return arrays[-1] if arrays else None


def per_lane(value, *inputs, dtype=np.uint32, block=32, setup="", **options):
    """What `value` holds in each thread after `setup`; inputs are loaded to %r1, %r2, ..."""
    out = np.zeros(block, dtype)
    loads = "".join(
        f"add.u64 %rd13, %rd{i}, %rd15;\nld.global.u32 %r{i + 1}, [%rd13];\n"
        for i in range(len(inputs))
    )
    body = (
        f"{loads}{setup}\nadd.u64 %rd14, %rd{len(inputs)}, %rd15;\nst.global.u32 [%rd14], {value};"
    )
    return run(body + "\nret;", *inputs, out, block=block, **options)
