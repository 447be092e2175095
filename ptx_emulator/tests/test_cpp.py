"""The C++ interface, from a program that the system's compiler builds."""

import re

import pytest

from .programs import build, output_of
from .small_kernels import RACY, SCALE, UNKNOWN


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cpp")
    paths = []
    for name, text in {"scale": SCALE, "racy": RACY, "unknown": UNKNOWN}.items():
        paths.append(folder / f"{name}.ptx")
        paths[-1].write_text(text)
    return output_of(build(folder, "api"), *paths)


@pytest.mark.parametrize(
    "line",
    [
        r"kernel scale for sm_90a: x 0\+8 y 8\+8 factor 16\+4",
        r"kernel racy for sm_90a: x 0\+8 y 8\+8",
        r"not modelled: line \d+: frobnicate\.b32: unknown instruction",
        r"not modelled: line \d+: add\.u32\.odd: not modelled: \.odd",
        r"scale: 3 189, \d+ warp instructions",
        r"past the end: kind 0: scale: a write of 4 bytes at y \+ \d+ outside all memory .*",
        r"too few arguments: error: scale takes 3 arguments, got 0",
        r"too large: kind 3: threads along x: 2048, the limit is 1024",
        r"racy: kind 1: racy: \d races?",
        r"  and read by thread \(\d+,0,0\) of CTA \(0,0,0\)",
        r"racy, not looked for: none",
        r"unknown: kind 4: the module uses what is not modelled:",
        r"no PTX: error: line 1: expected a directive, found 'int'",
        r"no kernel: 1",
        r"a map: none",
        r"a wrong map: error: boxDim\[1\] must be in 1 \.\. 256 \(257\)",
    ],
)
def test_the_program_prints(printed, line):
    assert any(re.fullmatch(line, text) for text in printed.splitlines()), printed
