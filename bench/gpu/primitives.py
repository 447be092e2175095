"""Kernels of tests/cuda/primitives.cu as cases: launched alike on a GPU and in the emulator.

A case's outputs are compared by their bytes unless hardware is known, or allowed, to round
otherwise: then the differences are reported and held to a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from csrc.cuda import build

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tests" / "cuda" / "primitives.cu"
BUILT = ROOT / "build" / "primitives"


@dataclass(frozen=True)
class Out:
    """An output: allocated for the launch, and not written yet."""

    shape: tuple
    dtype: type

    def bytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Map:
    """A tensor map of an array of bytes. dims, box and strides are innermost first."""

    array: np.ndarray
    box: tuple
    dims: tuple
    strides: tuple  # bytes, without the innermost
    swizzle: int


@dataclass(frozen=True)
class Primitive:
    """expected: the outputs that are right, by numpy; None where hardware may round otherwise.

    error(outputs): how wrong outputs are, in words, or raises AssertionError where that is more
    than the instruction's specification allows.
    """

    name: str
    kernel: str
    arguments: tuple
    block: int
    grid: int = 1
    cluster: int = 1
    expected: tuple | None = None
    error: Callable[[Sequence[np.ndarray]], str] | None = None
    fp8: bool = False  # summed as coarsely as Hopper was found to, or not: both are compared with

    def launch_text(self) -> str:
        cluster = f", cluster {self.cluster}" if self.cluster > 1 else ""
        return f"{self.kernel}, grid {self.grid}, block {self.block}{cluster}"


def compile_primitives(*, ptx_only: bool) -> Path:
    """The stem of build/primitives/primitives.{ptx,fatbin}; raises SystemExit where nvcc fails."""
    nvcc, told = build.usable_nvcc()
    if nvcc is None:
        raise SystemExit(told)
    BUILT.mkdir(parents=True, exist_ok=True)
    build.compile_source(SOURCE, BUILT / "primitives", "sm90", nvcc, told, ptx_only=ptx_only)
    return BUILT / "primitives"


def emulated(module, case: Primitive, **options) -> list[np.ndarray]:
    """The outputs of a launch in the emulator; `module` is its Module of the PTX."""
    from ptx_emulator import TensorMap, Uninitialized

    outputs, arguments = [], []
    for a in case.arguments:
        if isinstance(a, Out):
            outputs.append(np.empty(a.shape, a.dtype))
            a = Uninitialized(outputs[-1])
        elif isinstance(a, Map):
            a = TensorMap(a.array, a.box, dims=a.dims, strides=a.strides, swizzle=a.swizzle)
        arguments.append(a)
    module.launch(case.kernel, case.grid, case.block, arguments, cluster=case.cluster, **options)
    return outputs


def difference(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> str | None:
    """The first byte that differs, in words."""
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        bytes_a, bytes_e = (np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in (a, e))
        if bytes_a.size != bytes_e.size:
            return f"output {i} has {bytes_a.size} bytes, not {bytes_e.size}"
        wrong = np.flatnonzero(bytes_a != bytes_e)
        if wrong.size:
            at = int(wrong[0])
            return (
                f"output {i}: {wrong.size} of {bytes_a.size} bytes differ, the first at {at}: "
                f"{bytes_a[at]:#04x}, not {bytes_e[at]:#04x}"
            )
    return None


def check(case: Primitive, actual: list[np.ndarray], module) -> str:
    """A line on what the GPU wrote beside the emulator; raises AssertionError where it is wrong."""
    like_emulator = emulated(module, case)
    if case.expected is not None:
        assert (found := difference(actual, case.expected)) is None, f"not as specified: {found}"
        assert (found := difference(actual, like_emulator)) is None, f"not the emulator's: {found}"
        return "the emulator's bytes"
    text = case.error(actual)
    scale = np.abs(like_emulator[0][np.isfinite(like_emulator[0])]).max()
    modes = {"emulator": like_emulator}
    if case.fp8:
        modes = {"fp32 sums": like_emulator, "coarse sums": emulated(module, case, coarse_fp8=True)}
    for name, outputs in modes.items():
        finite = np.isfinite(outputs[0])
        off = np.abs(actual[0][finite].astype(np.float64) - outputs[0][finite]).max() / scale
        text += f"; largest difference from {name}: {off:.2e} of the largest value"
    return text
