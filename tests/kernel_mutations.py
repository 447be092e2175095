"""Kernels and launches for the mutator (test_cuda_mutations.py): every ring goes round several
times, every way through the kernel is taken, and clusters have several CTAs."""

from __future__ import annotations

import ctypes
import functools
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from test_topk_indices_cuda import launch as launch_topk
from test_topk_indices_cuda import misleading, rows

from dsa_kernels import _cuda, topk_indices
from dsa_kernels._op import OPS
from dsa_kernels.testing import assert_bitwise_equal
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.differential import copy_written, named, watched_run

# What a case computes, with the kernel of a module or (None) its own, and the emulator's options.
Case = Callable[..., dict[str, torch.Tensor]]


def ptx_of(kernel: str) -> str:
    """The kernel's module without the module's other kernels, as nvcc writes it."""
    code = re.match("|".join(sorted(OPS, key=len, reverse=True)), kernel)[0]
    (path,) = _cuda.code_directory().glob(f"{code}.*.ptx")
    head, *rest = re.split(r"^(?=\.visible \.entry )", path.read_text(), flags=re.MULTILINE)
    bodies = [re.match(r".*?^}$", part, re.DOTALL | re.MULTILINE)[0] for part in rest]
    (body,) = (b for b in bodies if b.startswith(f".visible .entry {kernel}("))
    return head + body + rest[-1][len(bodies[-1]) :]


def shifted(x: torch.Tensor) -> torch.Tensor:
    """The same values, one element further on in memory: not aligned."""
    return torch.cat([x.new_zeros(1).view(-1), x.reshape(-1)])[1:].view(x.shape)


def of_op(kernel: str, shape: dict, *, unaligned: Iterable[str] = (), grid: int = 0) -> Case:
    """The op on inputs of this shape; `grid`: so many CTAs of a persistent kernel, whose rings
    would not come round if there was one for each SM."""
    from ptx_emulator.driver import intercepted

    name = re.match("|".join(sorted(OPS, key=len, reverse=True)), kernel)[0]
    op = OPS[name]
    arguments = case(name).make(torch.Generator().manual_seed(0), **shape)
    moved = {n: shifted(named(op, arguments)[n]) for n in unaligned}
    arguments = list({**named(op, arguments), **moved}.values())
    expected = watched_run(op, arguments, "reference")
    case(name).compare(expected, watched_run(op, arguments, "emulated"))
    written = [s.name for s in op.tensors if s.written]

    def run(module, **options):
        ran = []

        def instead(launch):
            if launch.kernel != kernel:
                return launch.run(**options)
            ran.append(kernel)
            if grid:
                launch.grid = (ctypes.c_uint32 * 3)(grid, 1, 1)
            return launch.run(module, **options)

        copied = copy_written(op, arguments)
        with intercepted(instead):
            op(*copied, backend="emulated")
        if not ran:
            raise RuntimeError(f"{name} does not launch {kernel} for {shape}")
        return {n: named(op, copied)[n] for n in written}

    return run


def of_topk(scores: torch.Tensor, topk: int, cluster: int, **arguments) -> Case:
    """The kernel by itself, with a size of cluster and a capacity that make short rows long."""

    def run(module, **options):
        return {"out": launch_topk(scores, topk, cluster, code=module, **arguments, **options)[0]}

    bounds = {n: a for n, a in arguments.items() if n.startswith("row")}
    assert_bitwise_equal(run(None)["out"], topk_indices(scores, topk, backend="native", **bounds))
    return run


def run_of(cases: list[Case]) -> Callable:
    """The mutator's `run`: each case gives the bytes that it gives with the original."""
    expected = [run(None) for run in cases]

    def run(module, **options):
        for computed, wanted in zip(cases, expected, strict=True):
            for name, value in computed(module, **options).items():
                assert_bitwise_equal(value, wanted[name], name)

    return run


def mqa_logits(kernel: str, **shape) -> list[Case]:
    case = functools.partial(of_op, kernel, grid=2)
    long = dict(num_rows=40, seq_len=330, bounds="causal", **shape)
    return [
        case(long),
        case({**long, "seq_len": 100, "num_rows": 150}),
        case(long, unaligned=["q"]),
        case(long, unaligned=["k"]),
        case(long, unaligned=["k_scale"]),
    ]


CASES: dict[str, Callable[[str], list[Case]]] = {
    "mqa_logits_fp8_h64_d128": lambda k: mqa_logits(k, num_heads=64),
}

# Where a wrapper of an instruction is called is what tells one use from another.
_WRAPPERS = re.compile(
    r"device/(common|mbarrier|tma|cp_async|cluster|wgmma|matrix_store)\.cuh|topk_indices/group\.cuh"
)


@functools.cache
def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def place(source: tuple[tuple[str, int], ...]) -> str:
    """The line of the kernel's source that a mutation is about."""
    frames = [(os.path.normpath(file), line) for file, line in source]
    frames = [frame for frame in frames if "/csrc/cuda/" in frame[0]]
    uses = [frame for frame in frames if not _WRAPPERS.search(frame[0])]
    file, line = (uses or frames)[0]
    return _lines(file)[line - 1].strip()
