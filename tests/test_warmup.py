"""warmup() in the emulator; on a GPU the same code loads the fatbins."""

from __future__ import annotations

import pytest
import torch

import dsa_kernels
from dsa_kernels import _cuda

needs_code = pytest.mark.skipif(
    not any(_cuda.code_directory().glob("*.ptx")), reason="there is no PTX (no nvcc)"
)


@needs_code
def test_every_kernel_loads():
    dsa_kernels.warmup(backend="emulated")
    dsa_kernels.warmup("cpu", backend="emulated")  # what is loaded stays
    scores = torch.tensor([[1.0, 3.0, 2.0]])
    assert dsa_kernels.topk_indices(scores, 2, backend="emulated").tolist() == [[1, 2]]


@needs_code
def test_code_that_does_not_load_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "other.sm90.ptx").write_text("no PTX")
    monkeypatch.setenv("DSA_CUDA_CODE", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"warmup: .*other\.sm90\.fatbin does not load: .*PTX"):
        dsa_kernels.warmup(backend="emulated")


def test_a_cpu_has_nothing_to_load(tmp_path, monkeypatch):
    monkeypatch.setenv("DSA_CUDA_CODE", str(tmp_path))
    dsa_kernels.warmup("cpu")
    dsa_kernels.warmup("cpu", backend="native")


def test_refusals(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="backend must be"):
        dsa_kernels.warmup(backend="reference")
    with pytest.raises(ValueError, match="device must be CUDA or a CPU; got meta"):
        dsa_kernels.warmup("meta")
    monkeypatch.setenv("DSA_CUDA_CODE", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"there is no \*\.ptx in "):
        dsa_kernels.warmup(backend="emulated")
    with pytest.raises(RuntimeError, match=r"there is no \*\.fatbin in "):
        dsa_kernels.warmup("cuda:0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_driver_it_says_so(tmp_path, monkeypatch):
    (tmp_path / "topk_indices.sm90.fatbin").touch()
    monkeypatch.setenv("DSA_CUDA_CODE", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"warmup: there is no NVIDIA driver"):
        dsa_kernels.warmup("cuda:0")
