"""ISA levels of the CPU backend: the forced one runs, and all give the same bits where promised."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsa_kernels._native import extension_path

LEVELS = ("scalar", "avx2", "avx512", "avx512_bf16")
PROGRAM = Path(__file__).parent / "_isa_digests.py"


@functools.cache
def run(level: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "DSA_CPU_ISA": level}
    return subprocess.run(
        [sys.executable, str(PROGRAM)], env=environment, capture_output=True, text=True
    )


def supported(level: str) -> bool:
    """False where this machine lacks the level; a run that fails otherwise fails the test."""
    result = run(level)
    if result.returncode != 0:
        assert f"DSA_CPU_ISA='{level}': levels that this machine supports are" in result.stderr, (
            result.stderr
        )
    return result.returncode == 0


pytestmark = pytest.mark.skipif(extension_path() is None, reason="no extension")


def test_scalar_and_the_default_run_everywhere():
    assert supported("scalar")
    assert json.loads(run("").stdout)["isa"] in LEVELS


@pytest.mark.parametrize("level", LEVELS)
def test_forced_level_is_the_one_that_runs(level):
    if not supported(level):
        pytest.skip(f"{level} is not supported here")
    assert json.loads(run(level).stdout)["isa"] == level


@pytest.mark.parametrize("level", LEVELS[1:])
def test_bitwise_ops_agree_with_scalar(level):
    if not supported(level):
        pytest.skip(f"{level} is not supported here")
    expected = json.loads(run("scalar").stdout)["digests"]
    got = json.loads(run(level).stdout)["digests"]
    assert got.keys() == expected.keys()
    different = [name for name in expected if got[name] != expected[name]]
    assert not different, f"{level}: other bits than scalar in {different}"


def test_an_unknown_level_is_refused_by_name():
    result = run("avx1024")
    assert "DSA_CPU_ISA='avx1024'" in result.stderr and "scalar" in result.stderr
