"""DSA_BACKEND and DSA_CPU_ISA: each in a process of its own, for both are read once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dsa_kernels

PROGRAM = """
import torch, dsa_kernels
from dsa_kernels._native import cpu_isa
print(dsa_kernels.explain("topk_indices").chosen, cpu_isa())
print(dsa_kernels.topk_indices(torch.tensor([[3.0, 1.0, 2.0]]), 2).tolist())
"""


def run(**variables) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if k not in ("DSA_BACKEND", "DSA_CPU_ISA")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env | variables, capture_output=True, text=True
    )


@pytest.mark.parametrize("level", ["scalar", "avx2"])
def test_isa_is_the_one_asked_for(level):
    done = run(DSA_CPU_ISA=level)
    if level == "avx2" and "supports are scalar." in done.stderr:
        return  # refused by a machine without AVX2, which is the other right answer
    assert done.stdout == f"native {level}\n[[0, 2]]\n", done.stderr


def test_unknown_isa_is_an_error_at_import():
    done = run(DSA_CPU_ISA="avx999")
    assert done.returncode == 1 and done.stdout == ""
    assert "ValueError: DSA_CPU_ISA='avx999': levels that this machine supports are" in done.stderr


def test_backend_for_a_program():
    assert run(DSA_BACKEND="reference").stdout.startswith("reference ")
    refused = run(DSA_BACKEND="tilelang").stderr
    assert "backend 'tilelang' was asked for and cannot run on cpu" in refused
    assert "ValueError: DSA_BACKEND='cuda'" in run(DSA_BACKEND="cuda").stderr


def test_the_package_works_without_its_extension(tmp_path):
    """Imports, explains and runs the reference where nothing was compiled."""
    package = Path(dsa_kernels.__file__).parent
    shutil.copytree(package, tmp_path / "dsa_kernels", ignore=shutil.ignore_patterns("*.so"))
    program = PROGRAM + "print(dsa_kernels.explain('topk_indices'))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.startswith("reference None\n[[0, 2]]\n"), done.stderr
    assert "not native: the extension is not built" in done.stdout
