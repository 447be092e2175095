"""The stand-in for the emulator on machines with a GPU, with the CPU as its device."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import pytest
import torch

from dsa_kernels import _op
from dsa_kernels._op import OPS
from dsa_kernels.testing import assert_bitwise_equal, on_gpu
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.differential import copy_written, watched_run
from dsa_kernels.testing.emulation import emulation

OP = OPS["topk_indices"]
pytestmark = pytest.mark.skipif(on_gpu.active(), reason="the GPU stands in already")


def small(op: str) -> list:
    return case(op).make(torch.Generator().manual_seed(1), **case(op).SMALL[0])


@pytest.mark.parametrize("op", sorted(OPS))
def test_every_op_gives_the_native_bytes(op):
    arguments = small(op)
    expected = watched_run(OPS[op], arguments, "native")
    with on_gpu.instead_of_the_emulator("cpu"):
        actual = watched_run(OPS[op], arguments, "emulated")
    for spec in OPS[op].tensors:
        if spec.written:
            assert_bitwise_equal(actual[spec.name], expected[spec.name], spec.name)


def test_strides_offsets_and_sharing_are_kept():
    storage = torch.arange(96, dtype=torch.float32)
    a, b, c = storage[5:65].view(6, 10)[:, 2:7], storage[40:48], torch.ones(3)
    copies = on_gpu.Copies([a, None, b, 7, c], "cpu").arguments
    assert copies[1] is None and copies[3] == 7
    for old, new in ((a, copies[0]), (b, copies[2]), (c, copies[4])):
        assert torch.equal(old, new)
        assert (old.stride(), old.storage_offset()) == (new.stride(), new.storage_offset())
        assert old.untyped_storage().nbytes() == new.untyped_storage().nbytes()
        assert old.data_ptr() != new.data_ptr()
    assert copies[0].untyped_storage()._cdata == copies[2].untyped_storage()._cdata
    assert copies[0].untyped_storage()._cdata != copies[4].untyped_storage()._cdata
    copies[0].zero_()  # elements 40, 41 and 47 of the storage are of both
    assert torch.equal(copies[2] == 0, (torch.arange(40, 48) >= 47) | (torch.arange(40, 48) < 42))


def with_kernel(monkeypatch, kernel) -> None:
    """`kernel` takes the place of the native one of OP; it gets the copies by name."""

    def native(*arguments):
        kernel(dict(zip(OP.arguments, arguments, strict=True)))

    monkeypatch.setitem(OP._overloads, "native", native)


def test_a_write_beside_an_output_comes_back(monkeypatch):
    """Guard bands see what was done to them."""

    def kernel(copies):
        out = copies["out"]
        out.as_strided((1,), (1,), out.storage_offset() - 1).zero_()

    with_kernel(monkeypatch, kernel)
    with (
        on_gpu.instead_of_the_emulator("cpu"),
        pytest.raises(AssertionError, match=r"out: out-of-bounds write: .* byte -4"),
    ):
        watched_run(OP, small(OP.name), "emulated")


def test_a_write_to_an_input_is_an_error(monkeypatch):
    with_kernel(monkeypatch, lambda copies: copies["scores"].zero_())
    with (
        on_gpu.instead_of_the_emulator("cpu"),
        pytest.raises(RuntimeError, match="scores is an input, and the kernel wrote to it"),
    ):
        watched_run(OP, small(OP.name), "emulated")


def test_overloads_called_directly_go_there_too(monkeypatch):
    calls = []
    with_kernel(monkeypatch, lambda copies: calls.append(copies["topk"]))
    arguments = copy_written(OP, small(OP.name))
    with on_gpu.instead_of_the_emulator("cpu"), torch.no_grad():
        torch.ops.dsa_kernels.topk_indices.emulated(*arguments)
        with emulation("late", coarse_fp8=True):  # has no effect, and starts no emulator
            torch.ops.dsa_kernels.topk_indices.emulated(*arguments)
    assert len(calls) == 2


def test_availability_asks_for_a_kernel_and_a_gpu():
    before = {op: OPS[op].backends("cpu") for op in OPS}
    with on_gpu.instead_of_the_emulator("cpu"):
        assert all("emulated" in OPS[op].backends("cpu") for op in OPS)
    if not torch.cuda.is_available():
        with on_gpu.instead_of_the_emulator("cuda"):
            assert not any("emulated" in OPS[op].backends("cpu") for op in OPS)
            assert "no GPU" in _op.emulation_problem(OP.name)
    assert {op: OPS[op].backends("cpu") for op in OPS} == before
    assert "topk_indices" in OPS and not on_gpu.active()


def test_kernels_of_another_backend_go_there(monkeypatch):
    called = []
    for backend in ("native", "tilelang"):
        kernel = functools.partial(lambda name, *_: called.append(name), backend)
        monkeypatch.setitem(OP._overloads, backend, kernel)
    monkeypatch.setattr(on_gpu, "problem", lambda *_: None)
    with on_gpu.instead_of_the_emulator("cpu", "tilelang"), torch.no_grad():
        torch.ops.dsa_kernels.topk_indices.emulated(*copy_written(OP, small(OP.name)))
    assert called == ["tilelang"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    "value, why",
    [("1", "sees no GPU"), ("tilelang", "sees no GPU"), ("x", "is 1 or tilelang; got x")],
)
def test_a_variable_that_cannot_be_followed_is_refused(value, why):
    command = [sys.executable, "-m", "pytest", "--collect-only", __file__]
    environment = {**os.environ, on_gpu.VARIABLE: value}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert why in done.stderr
