"""Kernels of DeepSeek-V3.2's shapes on every target: sources, limits, what machine code holds."""

from __future__ import annotations

import pytest

pytest.importorskip("tilelang", reason="tilelang is not installed: pip install .[tilelang]")

from tilelang_kernels import OPS, check
from tilelang_kernels.compilers import NoCompiler
from tilelang_kernels.fp8 import E4M3FN
from tilelang_kernels.targets import TARGETS

KERNELS = [(op, configuration) for op in OPS for configuration in check.TYPICAL[op]]
each_target = pytest.mark.parametrize("target", TARGETS)
each_kernel = pytest.mark.parametrize(
    ("op", "configuration"), KERNELS, ids=[check.name_of(*kernel) for kernel in KERNELS]
)


@pytest.mark.parametrize(  # gfx942 has the tightest limits
    "target", [t if t == "gfx942" else pytest.param(t, marks=pytest.mark.slow) for t in TARGETS]
)
@each_kernel
def test_sources_keep_to_the_limits(op, configuration, target):
    lowered = check.lowered(op, configuration, TARGETS[target])
    assert f"{lowered.name}(" in lowered.source
    assert 0 <= lowered.shared_bytes <= TARGETS[target].shared_bytes
    assert lowered.block[0] % TARGETS[target].wave == 0


# Instructions of the matrix units that products of bf16 and of fp8 must become.
MATRIX = {
    "sm_80": ("HMMA", "HMMA"),
    "sm_89": ("HMMA", "QMMA"),
    "sm_90a": ("HGMMA", "QGMMA"),
    "sm_100a": ("HMMA", "HMMA"),
    "sm_120": ("HMMA", "QMMA"),
    "gfx942": ("v_mfma_f32_16x16x16_bf16", "v_mfma_f32_16x16x32_fp8_fp8"),
    "gfx950": ("v_mfma_f32_16x16x16_bf16", "v_mfma_f32_16x16x32_fp8_fp8"),
}


def products(op: str, configuration: dict, target: str) -> set[str]:
    if op in ("mqa_logits", "paged_mqa_logits"):
        return {MATRIX[target][configuration.get("dtype", E4M3FN) == E4M3FN]}
    if op in ("sparse_mla_prefill", "sparse_mla_decode"):
        if target == "sm_90a" and configuration["narrow"]:
            return {"HMMA"}  # wgmma has 64 rows
        return {"v_mfma_f32_16x16x32_bf16" if target == "gfx950" else MATRIX[target][0]}
    return set()


@pytest.mark.slow  # each takes a compiler some seconds
@each_target
@each_kernel
def test_objects_multiply_by_matrix_instructions(op, configuration, target):
    """A compiler that finds the operands undefined drops the products without a word."""
    try:
        found = check.measure(op, configuration, TARGETS[target])  # raises where registers spill
    except NoCompiler as error:
        pytest.skip(str(error))
    assert set(found["matrix"]) == products(op, configuration, target)
