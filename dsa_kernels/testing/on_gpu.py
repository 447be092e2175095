"""Runs the tests of the "emulated" backend on a GPU instead, unchanged.

With DSA_TEST_GPU=1 (tests/conftest.py) the overload `.emulated` of every op that has a CUDA kernel
copies its CPU arguments to the GPU, runs the kernel there and copies what it wrote back; with
DSA_TEST_GPU=tilelang that is done for TileLang's kernels, on AMD's GPUs, too. Whole storages
travel, so strides, offsets, alignment, poison and guard bands are what the kernel meets.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator

import torch

from dsa_kernels import _op
from dsa_kernels._op import OPS, Op
from dsa_kernels.testing.replaced import replaced_on_cpu

VARIABLE = "DSA_TEST_GPU"
_devices: list[str] = []  # where the "emulated" backend runs; empty: in the emulator


def wanted() -> str | None:
    """The backend whose kernels are to be tested on a GPU, or None."""
    asked = os.environ.get(VARIABLE) or None
    return "native" if asked == "1" else asked


def active() -> bool:
    return bool(_devices)


def _bytes(storage: torch.UntypedStorage, device: str) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=device).set_(storage)


class Copies:
    """Arguments on another device. Those that share a storage go on sharing it."""

    def __init__(self, arguments, device: str):
        self._device = device
        self._pairs: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # bytes: here, there
        self.arguments = [self._copy(a) if isinstance(a, torch.Tensor) else a for a in arguments]

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._pairs:
            here = _bytes(storage, tensor.device.type)
            there = torch.empty(here.numel(), dtype=torch.uint8, device=self._device)
            self._pairs[storage._cdata] = here, there.copy_(here)
        there = self._pairs[storage._cdata][1].untyped_storage()
        copy = torch.empty(0, dtype=tensor.dtype, device=self._device)
        return copy.set_(there, tensor.storage_offset(), tensor.shape, tensor.stride())

    def copy_back(self, op: Op, arguments) -> None:
        """What was written; raises RuntimeError where that is no output."""
        values = dict(zip(op.arguments, arguments, strict=True))
        written, read = {}, {}
        for spec in op.tensors:
            if (tensor := values[spec.name]) is not None:
                (written if spec.written else read)[spec.name] = tensor.untyped_storage()._cdata
        for key in set(written.values()):
            here, there = self._pairs[key]
            here.copy_(there)
        for name, key in read.items():
            here, there = self._pairs[key]
            if not torch.equal(here, there.cpu()):
                raise RuntimeError(f"{op.name}: {name} is an input, and the kernel wrote to it")


def run(op: Op, device: str, backend: str, *arguments) -> None:
    """A backend's kernel for `device`, on copies."""
    copies = Copies(arguments, device)
    op._overloads[backend](*copies.arguments)
    if device == "cuda":
        torch.cuda.synchronize()
    copies.copy_back(op, arguments)


def problem(op: Op, device: str, backend: str = "native") -> str | None:
    """Why a backend's kernel of `op` cannot run on `device`, or None."""
    if device == "cuda" and not torch.cuda.is_available():
        return "torch sees no GPU"
    return op.unavailable(backend, device)


@contextlib.contextmanager
def instead_of_the_emulator(device: str = "cuda", backend: str = "native") -> Iterator[None]:
    """Inside, backend "emulated" is another one's kernel for `device`, on copies of CPU tensors."""
    kernels = {
        name: functools.partial(run, op, device, backend)
        for name, op in OPS.items()
        if problem(op, device, backend) is None
    }
    before = _op.emulation_problem
    _op.emulation_problem = lambda name: problem(OPS[name], device, backend)
    _devices.append(device)
    try:
        with replaced_on_cpu("emulated", kernels):
            yield
    finally:
        _op.emulation_problem = before
        _devices.pop()
        _op.refresh()
