"""Kernels of DeepSeek-V3.2's shapes on every target: sources, limits, what machine code holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("tilelang", reason="tilelang is not installed: pip install .[tilelang]")

from dsa_kernels.formats import D_V
from tilelang_kernels import OPS
from tilelang_kernels.pieces.fp8 import E4M3FN
from tilelang_kernels.toolchain import check
from tilelang_kernels.toolchain.compilers import NoCompiler
from tilelang_kernels.toolchain.targets import TARGETS, Target

KERNELS = [(op, configuration) for op in OPS for configuration in check.TYPICAL[op]]
each_target = pytest.mark.parametrize("target", TARGETS)
each_kernel = pytest.mark.parametrize(
    ("op", "configuration"), KERNELS, ids=[check.name_of(*kernel) for kernel in KERNELS]
)


# An access to q or k that is none of 16 bytes.
NARROW = re.compile(r"(?<!\(uint4\*\)\()(?<!\(fp8_e4_16_t\*\)\()\b[qk](?: \+|\[)")


@pytest.mark.parametrize(  # gfx942 has the tightest limits
    "target", [t if t == "gfx942" else pytest.param(t, marks=pytest.mark.slow) for t in TARGETS]
)
@each_kernel
def test_sources_keep_to_the_limits(op, configuration, target):
    lowered = check.lowered(op, configuration, TARGETS[target])
    assert f"{lowered.name}(" in lowered.source
    assert 0 <= lowered.shared_bytes <= TARGETS[target].shared_bytes
    assert lowered.block[0] % TARGETS[target].wave == 0
    if op in ("mqa_logits", "paged_mqa_logits"):
        assert "*)(k + " in lowered.source
        assert not NARROW.search(lowered.source), "operands are not loaded 16 bytes at a time"


# Instructions of the matrix units that products of bf16 and of fp8 must become.
MATRIX = {
    "sm_80": ("HMMA", "HMMA"),
    "sm_89": ("HMMA", "QMMA"),
    "sm_90a": ("HGMMA", "QGMMA"),
    "sm_100a": ("HMMA", "HMMA"),
    "sm_120": ("HMMA", "QMMA"),
    "gfx942": ("v_mfma_f32_16x16x16_bf16", "v_mfma_f32_16x16x32_fp8_fp8"),
    "gfx950": ("v_mfma_f32_16x16x32_bf16", "v_mfma_f32_16x16x32_fp8_fp8"),
}


def products(op: str, configuration: dict, target: str) -> set[str]:
    if op in ("mqa_logits", "paged_mqa_logits"):
        return {MATRIX[target][configuration.get("dtype", E4M3FN) == E4M3FN]}
    if op in ("sparse_mla_prefill", "sparse_mla_decode"):
        if target == "sm_90a" and configuration["narrow"]:
            return {"HMMA"}  # wgmma has 64 rows
        return {MATRIX[target][0]}
    return set()


def products_of_a_wave(op: str, configuration: dict, target: Target, opcode: str) -> int:
    """How many instructions of 16 x 16 x depth the products of a tile of keys are."""
    depth = int(opcode.split("x")[2].split("_")[0])
    if op in ("mqa_logits", "paged_mqa_logits"):
        tile = target.tiles[op]
        area, dims = tile.rows * tile.columns, configuration["dim"] // depth
    else:  # scores, then values
        tile = target.tiles["sparse_mla_narrow" if configuration["narrow"] else "sparse_mla"]
        area = tile.rows * tile.columns
        dims = configuration["d_qk"] // depth + D_V // depth
    return area // 256 * dims // (tile.threads // target.wave)


@pytest.mark.slow  # each takes a compiler some seconds
@each_target
@each_kernel
def test_objects_are_what_is_recorded(op, configuration, target):
    """A compiler that finds the operands undefined drops the products without a word."""
    try:
        found = check.measure(op, configuration, TARGETS[target])  # raises where registers spill
    except NoCompiler as error:
        pytest.skip(str(error))
    assert set(found["matrix"]) == products(op, configuration, target)
    expected = check.recorded()[check.name_of(op, configuration)][target]
    assert not check.complaints(expected, found)


@pytest.mark.parametrize("target", ["gfx942", "gfx950"])
def test_recorded_products_are_those_of_a_tile(target):
    for op in ("mqa_logits", "paged_mqa_logits", "sparse_mla_prefill", "sparse_mla_decode"):
        for configuration in check.TYPICAL[op]:
            of = check.recorded()[check.name_of(op, configuration)][target]
            ((opcode, count),) = of["matrix"].items()
            assert count == products_of_a_wave(op, configuration, TARGETS[target], opcode), of


def test_the_record_is_whole_and_in_the_docs():
    record = check.recorded()
    assert set(record) == {check.name_of(*kernel) for kernel in KERNELS}
    assert all(set(of) == set(TARGETS) for of in record.values())
    assert check.table() in (Path(__file__).parents[1] / "docs" / "tilelang.md").read_text(), (
        "python -m tilelang_kernels check --table"
    )


MQA = "mqa_logits 64 128 float8_e4m3fn float32"


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"matrix": {}}, "matrix {}"),
        ({"shared": 1}, "shared 1"),
        ({"registers": 10**4}, "registers 10000"),
        ({"registers": 10**4, "compiler": "another"}, "registers 10000"),
        ({"registers": 1}, None),
    ],
)
def test_what_differs_from_the_record_is_said(change, complaint):
    expected = check.recorded()[MQA]["gfx942"]
    said = check.complaints(expected, expected | change)
    assert [line.split(",")[0] for line in said] == ([complaint] if complaint else [])


def test_another_compiler_may_take_a_few_registers_more():
    expected = check.recorded()[MQA]["gfx942"]
    more = expected | {"registers": expected["registers"] + 3}
    assert check.complaints(expected, more)
    assert not check.complaints(expected, more | {"compiler": "another"})


def test_a_kernel_that_is_not_recorded_is_said():
    assert check.complaints(None, check.recorded()[MQA]["gfx942"]) == ["not in objects.json"]
