"""Kernels of DeepSeek-V3.2's shapes on every target: sources, limits, and what machine code holds."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("tilelang", reason="tilelang is not installed: pip install .[tilelang]")

from tilelang_kernels import OPS, check
from tilelang_kernels.compilers import NoCompiler
from tilelang_kernels.targets import TARGETS

KERNELS = [(op, configuration) for op in OPS for configuration in check.TYPICAL[op]]
each_target = pytest.mark.parametrize("target", TARGETS)
each_kernel = pytest.mark.parametrize(
    ("op", "configuration"), KERNELS, ids=[check.name_of(*kernel) for kernel in KERNELS]
)


@pytest.mark.parametrize("target", ["sm_80", "gfx942"])  # which differ most
@each_kernel
def test_sources_keep_to_the_limits(op, configuration, target):
    lowered = check.lowered(op, configuration, TARGETS[target])
    assert f"{lowered.name}(" in lowered.source
    assert 0 <= lowered.shared_bytes <= TARGETS[target].shared_bytes
    assert lowered.block[0] % TARGETS[target].wave == 0


@pytest.mark.slow  # each takes a compiler some seconds
@each_target
@each_kernel
def test_objects_are_as_recorded(op, configuration, target):
    try:
        found = check.measure(op, configuration, TARGETS[target])
    except NoCompiler as error:
        pytest.skip(str(error))
    held = json.loads(check.RECORDED.read_text())[check.name_of(op, configuration)][target]
    assert check.difference(found, held) is None, found


def test_differences():
    held = {"shared": 10, "registers": 100, "matrix": {"HMMA": 4}}
    assert check.difference(held, held) is None
    assert check.difference(held | {"registers": 99}, held) is None
    assert check.difference(held | {"registers": 101}, held) == "registers: 101, recorded 100"
    assert check.difference(held | {"shared": 9}, held) == "shared: 9, recorded 10"
    assert "matrix" in check.difference(held | {"matrix": {}}, held)
    assert "recorded None" in check.difference(held, {})
