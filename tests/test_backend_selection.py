"""DSA_BACKEND and DSA_CPU_ISA: each in a process of its own, for both are read once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dsa_kernels
from dsa_kernels import _gpu, _op, _tilelang

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


HOPPER = ["mqa_logits", "paged_mqa_logits", "sparse_mla_decode", "sparse_mla_prefill"]
HOPPER += ["topk_indices", "indexer_topk", "paged_indexer_topk"]


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A machine with a GPU of some architecture, all kernels' code, and TileLang's compilers."""
    (path := tmp_path / "cuda").mkdir()
    for op in _op.OPS:
        (path / f"{op}.{'sm90' if op in HOPPER else 'sm80'}.fatbin").touch()
    monkeypatch.setenv("DSA_CUDA_CODE", str(path))
    monkeypatch.setattr(_tilelang, "problem", lambda: None)

    def has(architecture: str) -> Path:
        monkeypatch.setattr(_gpu, "current", lambda: architecture)
        _gpu._problem.cache_clear()
        _op.refresh()
        return path

    yield has
    monkeypatch.undo()
    _gpu._problem.cache_clear()
    _op.refresh()


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90", "sm_100", "gfx942", "gfx90a"])
def test_a_gpu_gets_what_it_can_run(gpu, architecture):
    gpu(architecture)
    tilelang = "reference" if architecture in ("sm_75", "gfx90a") else "tilelang"
    for op, contract in _op.OPS.items():
        needs = ("sm_90",) if op in HOPPER else ("sm_80", "sm_90", "sm_100")
        expected = "native" if architecture in needs else tilelang
        assert contract.choose(None, "cuda") == expected, op


def test_why_a_gpu_cannot_run_a_backend_is_said(gpu):
    path = gpu("sm_75")
    op = _op.OPS["indexer_topk"]
    assert (
        op.unavailable("native", "cuda") == "its CUDA kernels are for sm_90, and this GPU is sm_75"
    )
    assert op.unavailable("tilelang", "cuda").startswith(
        "no TileLang target is for sm_75; there are"
    )
    with pytest.raises(ValueError, match="'native' was asked for and cannot run on cuda: its CUDA"):
        op.choose("native", "cuda")
    gpu("gfx950")
    assert op.unavailable("native", "cuda") == "CUDA kernels do not run on gfx950"
    (path / "topk_indices.sm90.fatbin").unlink()
    gpu("sm_90")
    assert "there is no fatbin of topk_indices in " in op.unavailable("native", "cuda")


def test_compiled_code_takes_the_choice(gpu):
    gpu("sm_80")

    @torch.compile(fullgraph=True, backend="eager")
    def chosen(x):
        names = [_op.OPS[op].choose(None, "cuda") for op in ("mqa_logits", "mla_cache_store")]
        return x + (names == ["tilelang", "native"])

    assert chosen(torch.zeros(1)).item() == 1
